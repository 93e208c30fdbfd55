"""The naive model's published limits: rules, exemptions, and what each subscriber has used and was told."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import date, timedelta

import numpy as np
from simswitch.core import commands, layout

from tests.model.books import DAY_MS, Books
from tests.model.records import Table
from tests.model.things import Call, Mismatch, RuleModel, SubscriberModel, Sweep

UNDER, WARNED, OVER = range(3)
NOTHING = (0, 0)
"""No action, and no speed to be slowed to."""


@dataclass(eq=False)
class Limits(Books):
    """What a subscriber may use is looked up anew each time, in lists."""

    groups: set[int] = field(default_factory=set)
    rules: dict[int, RuleModel] = field(default_factory=dict)
    """By entity, withdrawn ones too."""
    exemptions: dict[int, tuple[int, bytes]] = field(default_factory=dict)
    """By subscriber: until when, and why."""
    subscribers: dict[int, SubscriberModel] = field(default_factory=dict)
    subscribers_missed: int = 0

    # ---------------------------------------------------------------------------------------- the calendar

    def today(self) -> date:
        begins_ms = self.settings[layout.DAY_BEGINS_MS]
        local_ms = self.now_ms - begins_ms + (DAY_MS if begins_ms >= DAY_MS // 2 else 0)
        return date(1970, 1, 1) + timedelta(days=local_ms // DAY_MS)

    def _midnight_ms(self, day: date) -> int:
        begins_ms = self.settings[layout.DAY_BEGINS_MS]
        return (day - date(1970, 1, 1)).days * DAY_MS + begins_ms - (DAY_MS if begins_ms >= DAY_MS // 2 else 0)

    # -------------------------------------------------------------------------------------------- commands

    def define_rule(self, call: Call) -> set[int]:
        record = np.frombuffer(call.item["definition"].ljust(1024, b"\0"), commands.DEFINITION)[0]
        assert record["kind"] == layout.LIMIT_RULE
        numbers, name = record["numbers"].tolist(), bytes(record["name"])
        same = next((entity for entity, rule in self.rules.items() if rule.name == name), None)
        group, month, day, warn, action, slow, text, published, withdrawn = numbers[:9]
        good = 1 <= text <= record["document_size"]
        good = good and 0 <= published <= (self.today() - date(1970, 1, 1)).days
        good = good and month != 0 and day != 0 and not month == day == -1 and warn < 1000
        good = good and action in tuple(layout.LimitAction) and (action != layout.ACTION_SLOW or slow >= 1)
        if not good:
            return {layout.INVALID_ARGUMENT}
        if group != -1 and group not in self.groups:
            return {layout.UNKNOWN_ENTITY}
        others = [rule for entity, rule in self.rules.items() if entity != same and not rule.withdrawn]
        if withdrawn != 1 and any(rule.group == group for rule in others):
            return {layout.WRONG_STATE}
        index = call.answer["index"]
        self._require(same in (None, index), f"rule {name!r} has the entities {same} and {index}")
        rule = RuleModel(name, group, month, day, warn, action, slow, published, withdrawn == 1)
        before = self.rules.get(index)
        if before == rule:
            return {layout.SAME}
        turns = 0 if before is None else before.turns + 1
        self.rules[index] = replace(rule, turns=turns)
        if self.subscribers and not any(sweep.kind == "subscribers" for sweep in self.sweeps):
            self.sweeps.append(Sweep("subscribers"))
        return {layout.OK}

    def _walk_subscribers(self) -> None:
        """Rules were others: all who were told of one hear what holds, those with a lease at its access server."""
        for terminal in self.terminals.values():
            record = self.subscribers.get(terminal.subscriber)
            if terminal.sim is not None and record is not None and (record.told_month or record.told_day):
                self._meet(terminal.subscriber, terminal.key, terminal.server)
        for subscriber, record in self.subscribers.items():
            if record.told_month or record.told_day:
                self._meet(subscriber, 0, layout.NONE_SHORT)

    def exempt(self, call: Call) -> set[int]:
        subscriber, until_ms = call.item["subscriber"], call.item["until_ms"]
        reason = call.item["reason"]
        if not subscriber or (until_ms and (until_ms <= self.now_ms or not reason)):
            return {layout.INVALID_ARGUMENT}
        held = self.exemptions.get(subscriber, (0, b""))
        holds = held[0] > self.now_ms
        if not until_ms and not holds:
            return {layout.SAME}
        if until_ms and holds and held == (until_ms, reason):
            return {layout.SAME}
        self.exemptions[subscriber] = (until_ms or self.now_ms, reason if until_ms else held[1])
        told = layout.EXEMPT_BEGUN if until_ms else layout.EXEMPT_ENDED
        end_ms, actor = until_ms or self.now_ms, call.header["actor"]
        none = (layout.NONE_SHORT, layout.NONE_INDEX)
        self.events_due.append((layout.EVENT_EXEMPT, 0, subscriber, *none, told, end_ms, actor))
        if subscriber in self.subscribers:
            self._meet(subscriber, 0, layout.NONE_SHORT)
        return {layout.OK}

    # ------------------------------------------------------------------------------------- what follows

    def limit_asked(self, subscriber: int, group: int, terminal: int, server: int) -> tuple[int, int]:
        """A subscriber asks for a SIM, as one of that group (0: of none)."""
        record = self.subscribers.get(subscriber)
        if not self._in_force() or record is None:
            return NOTHING
        if group in (0, record.group):
            return self._meet(subscriber, terminal, server)
        if self.today() > record.day:
            self._meet(subscriber, terminal, server)
        _, rule, month, day = self._levels(subscriber, group)
        return _does(rule, month, day)

    def limit_joined(self, subscriber: int, group: int, terminal: int, server: int) -> None:
        """It has a lease, as one of that group (0: of the one that is known)."""
        if not subscriber or not group:
            return
        record = self._known(subscriber, server)
        if record is not None and record.group != group:
            record.group = group
            self._meet(subscriber, terminal, server)

    def limit_counted(self, subscriber: int, delta: int, terminal: int, server: int) -> tuple[int, int]:
        if not subscriber:
            return NOTHING
        record = self._known(subscriber, server)
        if record is None:
            self.subscribers_missed += 1
            return NOTHING
        if self.today() > record.day:
            self._meet(subscriber, terminal, server)
        # The fields of the engine end there: 4.4 TB a day of one person, 281 TB a month.
        record.day_bytes = min(record.day_bytes + delta, (1 << 42) - 1)
        record.month_bytes = min(record.month_bytes + delta, (1 << 48) - 1)
        return self._meet(subscriber, terminal, server, counted=True)

    def limit_of(self, subscriber: int, terminal: int, server: int) -> tuple[int, int]:
        if not subscriber or not self._in_force() or subscriber not in self.subscribers:
            return NOTHING
        return self._meet(subscriber, terminal, server)

    def limit_ends_ms(self, subscriber: int, group: int) -> int:
        record = self.subscribers[subscriber]
        _, _, month, _ = self._levels(subscriber, group or record.group)
        if month == OVER:
            following = date(record.day.year + record.day.month // 12, record.day.month % 12 + 1, 1)
            return self._midnight_ms(following)
        return self._midnight_ms(record.day + timedelta(days=1))

    def _in_force(self) -> list[RuleModel]:
        return [rule for rule in self.rules.values() if not rule.withdrawn]

    def _room(self, taken: int, brought: int) -> bool:
        """Whether an access server that has brought so many names may bring one more."""
        most = self.terminals_max
        return taken < most - most // 8 or (taken < most and brought * len(self.servers) < most)

    def _known(self, subscriber: int, server: int) -> SubscriberModel | None:
        """None: there is no room for another."""
        if subscriber not in self.subscribers:
            of = self.servers[server] if server < len(self.servers) else None
            if not self._room(len(self.subscribers), of.subscribers_brought if of is not None else 0):
                return None
            if of is not None:
                of.subscribers_brought += 1
        return self.subscribers.setdefault(subscriber, SubscriberModel(date(1970, 1, 1)))

    def _rule_for(self, group: int) -> tuple[int, RuleModel | None]:
        held = {rule.group: (entity, rule) for entity, rule in self.rules.items() if not rule.withdrawn}
        return held.get(group) or held.get(-1) or (0, None)

    def _meet(self, subscriber: int, terminal: int, server: int, *, counted: bool = False) -> tuple[int, int]:
        record, today = self.subscribers[subscriber], self.today()
        if today > record.day:
            if (today.year, today.month) != (record.day.year, record.day.month):
                record.month_bytes = 0
            record.day, record.day_bytes = today, 0
        entity, rule, month, day = self._levels(subscriber, record.group)
        told, turns = record.told_of
        again = rule is not None and told == entity and turns != rule.turns
        spans = [(entity, again, (record.told_month, month), (record.told_day, day))]
        if (record.told_month or record.told_day) and told != entity:
            old = (told, False, (record.told_month, UNDER), (record.told_day, UNDER))
            spans = [old, (entity, False, (UNDER, month), (UNDER, day))]
        for of, anew, *levels in spans:
            for of_day, (before, level) in enumerate(levels):
                steps: list[int] = []
                if before == OVER > level:
                    steps.append(layout.LIMIT_LIFTED)
                at_once = counted and before == UNDER and level == OVER and self.rules[of].warn_permille > 0
                if level == WARNED != before or at_once:
                    steps.append(layout.LIMIT_WARNED)
                if level == OVER and (anew or before < OVER):
                    steps.append(_STEPS[self.rules[of].action])
                for step in steps:
                    limit = (self.rules[of].day_bytes if of_day else self.rules[of].month_bytes) if of else 0
                    a = (record.day_bytes if of_day else record.month_bytes) | of << 48 | of_day << 62
                    row = (layout.EVENT_LIMIT, terminal, subscriber, server, layout.NONE_INDEX, step, a, max(limit, 0))
                    self.events_due.append(row)
        record.told_month, record.told_day = month, day
        record.told_of = (entity, rule.turns if rule else 0)
        return _does(rule, month, day)

    def _levels(self, subscriber: int, group: int) -> tuple[int, RuleModel | None, int, int]:
        """Its rule as one of that group, and how far it is by that."""
        record, (entity, rule) = self.subscribers[subscriber], self._rule_for(group)
        if rule is None or self.exemptions.get(subscriber, (0, b""))[0] > self.now_ms:
            return entity, rule, UNDER, UNDER
        month = _level(record.month_bytes, rule.month_bytes, rule.warn_permille)
        return entity, rule, month, _level(record.day_bytes, rule.day_bytes, rule.warn_permille)

    # --------------------------------------------------------------------------------------------- compare

    def compare_subscribers(self, table: Table, exemptions: Table, header: Table) -> None:
        found = {}
        for record in table[table["key"] != 0]:
            day, month = int(record["day"]), int(record["month"])
            stamp = day >> 42 & 0xFFFF
            found[int(record["key"])] = SubscriberModel(
                date(1970 + (stamp >> 5) // 12, (stamp >> 5) % 12 + 1, stamp & 31) if stamp else date(1970, 1, 1),
                day & (1 << 42) - 1,
                month & (1 << 48) - 1,
                month >> 48 & 0x3FFF,
                month >> 62,
                day >> 58 & 3,
            )
        if found != self.subscribers:
            raise Mismatch(f"subscribers: {found}, should be {self.subscribers}")
        missed = int(header["subscribers_missed"])
        self._require(missed == self.subscribers_missed, f"{missed} reports missed, not {self.subscribers_missed}")
        kept = {int(record["subscriber"]): (int(record["until_ms"]), record["reason"]) for record in exemptions}
        self._require(kept == self.exemptions, f"exemptions: {kept}, should be {self.exemptions}")


def _does(rule: RuleModel | None, month: int, day: int) -> tuple[int, int]:
    if rule is None or OVER not in (month, day):
        return NOTHING
    return rule.action, rule.slow_kbps if rule.action == layout.ACTION_SLOW else 0


def _level(used: int, limit: int, warn_permille: int) -> int:
    if limit < 0 or used < limit // 1000 * max(warn_permille, 0):
        return UNDER
    return OVER if used >= limit else WARNED if warn_permille > 0 else UNDER


_STEPS: dict[int, int] = {
    layout.ACTION_NOTIFY: layout.LIMIT_PASSED,
    layout.ACTION_SLOW: layout.LIMIT_SLOWED,
    layout.ACTION_REFUSE: layout.LIMIT_REFUSED,
}
