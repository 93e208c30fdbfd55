"""The invariants that can be seen in one state, checked from the raw records by plain loops.

This repeats in Python what ``Machine.check`` does in Cython, from the text of the design and not from its code: the two
were written apart, so an error of thought in one shows in the other.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
from simswitch.core import layout

from tests.model.records import Table

IN_FLIGHT = (int(layout.OUTSTANDING), int(layout.UNKNOWN))
NONE = int(layout.NONE_INDEX)
# Plain numbers: comparing NumPy's with an enum's member costs a hundred times more.
SWITCH, FREE, HEALTHY = int(layout.SWITCH), int(layout.FREE), int(layout.HEALTHY)
ASSIGNED, RESERVED, COOLING = int(layout.ASSIGNED), int(layout.RESERVED), int(layout.COOLING)
MIB = 1 << 20


def tier_of(headroom: int) -> int:
    """The tier in which a headroom lies: a quarter of a power of two of MiB."""
    if headroom < 4 * MIB:
        return max(headroom, 0) // MIB
    mebibytes = headroom // MIB
    exponent = mebibytes.bit_length() - 1
    quarter = (mebibytes - (1 << exponent)) * 4 // (1 << exponent)
    return min(4 * exponent + quarter - 4, layout.TIERS - 1)


def violations(state: dict[str, Table]) -> list[str]:
    """One line for each thing that is wrong; empty is sound."""
    header = state["header"][0]
    sims = state["sims"][: header["sims_count"]]
    terminals = state["terminals"][: header["terminals_count"]]
    found: list[str] = []
    found += _holders(state, sims, terminals)
    found += _orders(state, sims, terminals)
    found += _index(state, sims)
    found += _totals(header, sims, terminals)
    found += _pools(state, sims)
    return found


def _in_flight(state: dict[str, Table]) -> list[tuple[int, dict[str, int]]]:
    """The orders that were sent and are not settled."""
    orders = state["orders"]
    names = ("kind", "terminal", "source", "target", "server", "orphaned")
    return [
        (int(index), {name: int(orders[index][name]) for name in names})
        for index in np.flatnonzero(np.isin(orders["state"], IN_FLIGHT))
    ]


def _holders(state: dict[str, Table], sims: Table, terminals: Table) -> list[str]:
    found = []
    holders = Counter(sim for sim in terminals["sim"].tolist() if sim != NONE)
    targets = Counter(
        order["target"] for _, order in _in_flight(state) if order["kind"] == SWITCH and not order["orphaned"]
    )
    named = sims["terminal"].tolist()
    for index, (occupancy, held) in enumerate(zip(sims["occupancy"].tolist(), sims["held"].tolist(), strict=True)):
        claims = holders[index] + targets[index]
        if claims > 1:
            found.append(f"I1: SIM {index} is claimed {claims} times")
        if (occupancy == ASSIGNED) != (holders[index] == 1):
            found.append(f"I1: SIM {index} has occupancy {occupancy} and {holders[index]} holders")
        if (occupancy == RESERVED) != (targets[index] == 1):
            found.append(f"I1: SIM {index} has occupancy {occupancy} and is target of {targets[index]} orders")
        if held and occupancy != COOLING:
            found.append(f"I1: SIM {index} is held for an access server but not cooling")
    for index, sim in enumerate(terminals["sim"].tolist()):
        if sim != NONE and (sim >= len(sims) or named[sim] != index):
            found.append(f"I2: terminal {index} holds SIM {sim}, which names another terminal")
    if len(set(terminals["key"].tolist())) != len(terminals):
        found.append("I2: a terminal is known twice")
    return found


def _orders(state: dict[str, Table], sims: Table, terminals: Table) -> list[str]:
    found = []
    outstanding: Counter[int] = Counter()
    swaps: Counter[int] = Counter()
    for index, order in _in_flight(state):
        outstanding[order["server"]] += 1
        if order["kind"] != SWITCH or order["orphaned"]:
            continue
        terminal = terminals[order["terminal"]]
        swaps[order["terminal"]] += 1
        if terminal["sim"] != order["source"] or int(sims[order["source"]]["occupancy"]) != ASSIGNED:
            found.append(f"I9: order {index} is in flight and its terminal has lost the source SIM")
        if int(sims[order["target"]]["occupancy"]) != RESERVED:
            found.append(f"I9: order {index} is in flight and its target is not reserved")
        if terminal["order"] != index:
            found.append(f"I2: terminal {order['terminal']} does not know of its swap {index}")
    for terminal_index, count in swaps.items():
        if count > 1:
            found.append(f"I2: terminal {terminal_index} has {count} reserved targets")
    for index, server in enumerate(state["servers"][: state["header"][0]["servers_count"]]):
        window, counted = int(server["window"]), int(server["outstanding"])
        if outstanding[index] != counted:
            found.append(f"I3: access server {index} counts {counted} orders, it has {outstanding[index]}")
        if counted > 200 or not 1 <= window <= 200:
            found.append(f"I3: access server {index}: window {window}, outstanding {counted}")
    return found


def _index(state: dict[str, Table], sims: Table) -> list[str]:
    """I5: the index equals the one that follows from the SIM records alone."""
    found = []
    expected: dict[tuple[int, int], list[int]] = {}
    columns = ("limit_bytes", "counted_bytes", "occupancy", "health", "tier", "group", "cooling")
    rows = zip(*(sims[name].tolist() for name in columns), strict=True)
    for index, (limit, counted, occupancy, health, stands_in, group, cooling) in enumerate(rows):
        free_healthy = occupancy == FREE and health == HEALTHY
        tier = tier_of(limit - counted) if free_healthy else int(layout.TIER_NONE)
        if free_healthy and cooling >> 55 & 1:
            tier = min(tier, tier_of(256 * MIB))
        if stands_in != tier:
            found.append(f"I5: SIM {index} stands in tier {stands_in}, it belongs into {tier}")
        if free_healthy:
            expected.setdefault((group, tier), []).append(index)
    class_tiers: dict[tuple[int, int], set[int]] = {}
    class_free: Counter[int] = Counter()
    rests, following = sims["rest_sequence"].tolist(), sims["next"].tolist()
    for number, group in enumerate(state["groups"][: state["header"][0]["groups_count"]]):
        total = 0
        heads, tails, bits = group["head"].tolist(), group["tail"].tolist(), _bits(group["tiers"].tolist())
        occupied = bits.union(np.flatnonzero((group["head"] != NONE) | (group["tail"] != NONE)).tolist())
        occupied.update(tier for group_number, tier in expected if group_number == number)
        for tier in sorted(occupied):
            wanted = sorted(expected.get((number, tier), []), key=rests.__getitem__)
            listed = _listed(following, heads[tier])
            if listed != wanted:
                found.append(f"I5: group {number}, tier {tier} lists {listed}, the records say {wanted}")
            if (wanted[-1] if wanted else NONE) != tails[tier]:
                found.append(f"I5: group {number}, tier {tier} ends with {tails[tier]}")
            if (tier in bits) != bool(wanted):
                found.append(f"I5: group {number}: the bit of tier {tier} is wrong")
            total += len(wanted)
            if wanted and not group["masked"]:
                class_tiers.setdefault((int(group["sim_class"]), tier), set()).add(int(group["local"]))
        if group["free_count"] != total:
            found.append(f"I5: group {number} counts {group['free_count']} SIMs, it has {total}")
        if not group["masked"]:
            class_free[int(group["sim_class"])] += total
    for number, sim_class in enumerate(state["classes"][: state["header"][0]["classes_count"]]):
        if sim_class["free_count"] != class_free[number]:
            found.append(f"I5: class {number} counts {sim_class['free_count']} SIMs, it has {class_free[number]}")
        found += _class_bits(number, sim_class, class_tiers) + _ranks(number, sim_class, state)
    return found


def _ranks(number: int, sim_class: Table, state: dict[str, Table]) -> list[str]:
    """Its groups in the order of when their lots end, and in which tiers each rank has a SIM."""

    def end_s(group: Table) -> int:
        until_s = int(state["entities"][group["lot"]]["numbers"][layout.LOT_VALID_UNTIL_S])
        ended = state["lots"][group["lot"]]["validity"] == layout.NO_LONGER_VALID
        return until_s if until_s >= 0 and not ended else 2**63

    all_groups = state["groups"][: state["header"][0]["groups_count"]]
    groups = [(end_s(group), group) for group in all_groups if group["sim_class"] == number]
    ends = sorted({end for end, _ in groups})
    found = []
    if sim_class["ranks_count"] != len(ends):
        found.append(f"I5: class {number} has {sim_class['ranks_count']} ranks, its lots have {len(ends)} ends")
    for rank, end in enumerate(ends):
        mine = [group for group_end, group in groups if group_end == end]
        tiers = set().union(*(_bits(group["tiers"].tolist()) for group in mine if not group["masked"]))
        roomiest = max(tiers, default=0)
        if len(ends) == 1:
            mine, tiers, roomiest = [], set(), 0
        if any(group["rank"] != rank for group in mine):
            found.append(f"I5: class {number}: groups of rank {rank} do not know it")
        shown = _bits(sim_class["rank_groups"][rank].tolist())
        if shown != {int(group["local"]) for group in mine}:
            found.append(f"I5: class {number}: rank {rank} shows groups {shown}")
        shown = _bits(sim_class["rank_tiers"][2 * rank : 2 * rank + 2].tolist())
        if shown != tiers or int(sim_class["rank_roomiest"][rank // 8]) >> rank % 8 * 8 & 255 != roomiest:
            found.append(f"I5: class {number}: rank {rank} shows tiers {shown}, it has {tiers}")
    return found


def _class_bits(number: int, sim_class: Table, class_tiers: dict[tuple[int, int], set[int]]) -> list[str]:
    found = []
    tiers, groups, summaries = (sim_class[name] for name in ("tiers", "groups", "summary"))
    bits = _bits(tiers.tolist())
    occupied = bits.union(np.flatnonzero(groups.any(axis=1) | (summaries != 0)).tolist())
    occupied.update(tier for class_number, tier in class_tiers if class_number == number)
    for tier in sorted(occupied):
        words, summary = groups[tier].tolist(), int(summaries[tier])
        members = class_tiers.get((number, tier), set())
        if _bits(words) != members or _bits([summary]) != {local // 64 for local in members}:
            found.append(f"I5: class {number}, tier {tier} shows groups {_bits(words)}, it has {members}")
        if (tier in bits) != bool(members):
            found.append(f"I5: class {number}: the bit of tier {tier} is wrong")
    return found


def _bits(words: list[int]) -> set[int]:
    """The numbers of the bits that are set, over all words."""
    return {64 * word + bit for word, value in enumerate(words) if value for bit in range(64) if value >> bit & 1}


def _listed(following: list[int], head: int) -> list[int]:
    listed: list[int] = []
    while head != NONE and len(listed) <= len(following):
        listed.append(head)
        head = following[head]
    return listed


def _pools(state: dict[str, Table], sims: Table) -> list[str]:
    """I8: what a pool counts, each report once; I4: what it keeps for leases, by its SIMs."""
    found = []
    pools = state["groups"]["pool"][sims["group"]] if len(sims) else sims["group"]
    in_use = np.isin(sims["occupancy"], (RESERVED, ASSIGNED)) | (sims["held"] != 0)
    for entity in np.unique(pools[pools != 0]).tolist():
        lot, mine = state["lots"][entity], sims[pools == entity]
        counted = sum(mine["counted_bytes"].tolist())
        claimed = sum(mine["rest_sequence"][in_use[pools == entity]].tolist())
        if (counted, claimed) != (int(lot["pool_counted_bytes"]), int(lot["pool_claimed_bytes"])):
            found.append(
                f"I8: pool {entity} counts {lot['pool_counted_bytes']} and keeps {lot['pool_claimed_bytes']}, "
                f"its SIMs {counted} and {claimed}"
            )
    return found


def _totals(header: Table, sims: Table, terminals: Table) -> list[str]:
    found = []
    by_sim = sum(int(count) for count in sims["counted_bytes"])
    by_terminal = sum(int(count) for count in terminals["counted_bytes"])
    if not by_sim == by_terminal == header["counted_bytes"]:
        found.append(f"I8: {by_sim} bytes over SIMs, {by_terminal} over terminals, total {header['counted_bytes']}")
    for column, counts in (("occupancy", header["occupancy_count"]), ("health", header["health_count"])):
        tally = Counter(sims[column].tolist())
        for value, count in enumerate(counts.tolist()):
            if tally[value] != count:
                found.append(f"I5: the count of SIMs with {column} {value} is {count}, there are {tally[value]}")
    return found
