"""What of a report a party may see: by the one role table (``core/roles.py``), the same data for everybody.

    operator               everything
    supplier               its own lots, and nothing else
    technology provider    operations, without terms and without subscribers
    auditor                everything, and who decided what, when, on which figures

What a party may not see is taken out of the figures before a page or JSON is made of them, so no form can show it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from simswitch.core import layout
from simswitch.core.roles import READ_ROLES, ROLE_WORDS, Read
from simswitch.reports.daily import Day, sums


@dataclass(frozen=True, slots=True)
class View:
    """A role, and whose."""

    role: int
    name: str = ""

    @classmethod
    def of(cls, actor: str) -> View:
        """From a name such as ``supplier:blue-mobile``. Raises ``ValueError``."""
        word, _, name = actor.partition(":")
        role = ROLE_WORDS.get(word)
        if role is None:
            raise ValueError(f"there is no role {word!r}; there are {', '.join(ROLE_WORDS)}")
        if role == layout.ROLE_SUPPLIER and not name:
            raise ValueError("which supplier? Say supplier:NAME, as it stands in the inventory")
        return cls(role, name)

    def may(self, right: Read) -> bool:
        return self.role in READ_ROLES[right]

    def rights(self) -> frozenset[Read]:
        return frozenset(right for right in Read if self.may(right))

    def seen(self, day: Day) -> Day:
        """What of a day this party may see; the rest is not in the result."""
        result = replace(day, rights=self.rights())
        if self.role == layout.ROLE_SUPPLIER:
            own = [lot for lot in day.lots if lot.supplier == self.name]
            result = replace(result, lots=own, pool=sums(own))
        elif not self.may(Read.LOTS):
            # Counts of the whole pool are no terms.
            result = replace(result, lots=[], pool=day.pool if self.may(Read.POOL) else sums([]))
        if not self.may(Read.POOL):
            result = replace(result, used_bytes=0, subscribers=0, spans=[])
        if not self.may(Read.SWAPS):
            result = replace(result, swaps={}, jobs=[], jobs_count=0)
        if not self.may(Read.SUBSCRIBERS):
            result = replace(result, heavy=[])
        if not self.may(Read.DECISIONS):
            result = replace(result, decisions=[], decisions_count=0)
        return result
