"""The invariants that can be seen in one state, checked from the raw records by plain loops.

This repeats in Python what ``Machine.check`` does in Cython, from the text of the design and not from its code: the two were
written apart, so an error of thought in one shows in the other.
"""

from __future__ import annotations

from collections import Counter

from simswitch.core import layout
from tests.model.records import Table

IN_FLIGHT = (layout.OUTSTANDING, layout.UNKNOWN)
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
    return found


def _holders(state: dict[str, Table], sims: Table, terminals: Table) -> list[str]:
    found = []
    holders = Counter(int(sim) for sim in terminals["sim"] if sim != layout.NONE_INDEX)
    targets = Counter(
        int(order["target"])
        for order in state["orders"]
        if order["state"] in IN_FLIGHT and order["kind"] == layout.SWITCH and not order["orphaned"]
    )
    for index, sim in enumerate(sims):
        claims = holders[index] + targets[index]
        if claims > 1:
            found.append(f"I1: SIM {index} is claimed {claims} times")
        if (sim["occupancy"] == layout.ASSIGNED) != (holders[index] == 1):
            found.append(f"I1: SIM {index} has occupancy {sim['occupancy']} and {holders[index]} holders")
        if (sim["occupancy"] == layout.RESERVED) != (targets[index] == 1):
            found.append(f"I1: SIM {index} has occupancy {sim['occupancy']} and is target of {targets[index]} orders")
        if sim["held"] and sim["occupancy"] != layout.COOLING:
            found.append(f"I1: SIM {index} is held for an access server but not cooling")
    for index, terminal in enumerate(terminals):
        sim = terminal["sim"]
        if sim == layout.NONE_INDEX:
            continue
        if sim >= len(sims) or sims[sim]["terminal"] != index:
            found.append(f"I2: terminal {index} holds SIM {sim}, which names another terminal")
    if len(set(terminals["key"].tolist())) != len(terminals):
        found.append("I2: a terminal is known twice")
    return found


def _orders(state: dict[str, Table], sims: Table, terminals: Table) -> list[str]:
    found = []
    outstanding: Counter[int] = Counter()
    swaps: Counter[int] = Counter()
    for index, order in enumerate(state["orders"]):
        if order["state"] not in IN_FLIGHT:
            continue
        outstanding[int(order["server"])] += 1
        if order["kind"] != layout.SWITCH or order["orphaned"]:
            continue
        terminal = terminals[order["terminal"]]
        swaps[int(order["terminal"])] += 1
        if terminal["sim"] != order["source"] or sims[order["source"]]["occupancy"] != layout.ASSIGNED:
            found.append(f"I9: order {index} is in flight and its terminal has lost the source SIM")
        if sims[order["target"]]["occupancy"] != layout.RESERVED:
            found.append(f"I9: order {index} is in flight and its target is not reserved")
        if terminal["order"] != index:
            found.append(f"I2: terminal {order['terminal']} does not know of its swap {index}")
    for terminal_index, count in swaps.items():
        if count > 1:
            found.append(f"I2: terminal {terminal_index} has {count} reserved targets")
    for index, server in enumerate(state["servers"][: state["header"][0]["servers_count"]]):
        if outstanding[index] != server["outstanding"]:
            found.append(f"I3: access server {index} counts {server['outstanding']} orders, it has {outstanding[index]}")
        if server["outstanding"] > layout.WINDOW_MAX or not 1 <= server["window"] <= layout.WINDOW_MAX:
            found.append(f"I3: access server {index}: window {server['window']}, outstanding {server['outstanding']}")
    return found


def _index(state: dict[str, Table], sims: Table) -> list[str]:
    """I5: the index equals the one that follows from the SIM records alone."""
    found = []
    expected: dict[tuple[int, int], list[int]] = {}
    for index, sim in enumerate(sims):
        headroom = int(sim["limit_bytes"]) - int(sim["counted_bytes"])
        free_healthy = sim["occupancy"] == layout.FREE and sim["health"] == layout.HEALTHY
        tier = tier_of(headroom) if free_healthy else layout.TIER_NONE
        if sim["tier"] != tier:
            found.append(f"I5: SIM {index} stands in tier {sim['tier']}, it belongs into {tier}")
        if free_healthy:
            expected.setdefault((int(sim["group"]), tier), []).append(index)
    class_tiers: dict[tuple[int, int], set[int]] = {}
    class_free: Counter[int] = Counter()
    for number, group in enumerate(state["groups"][: state["header"][0]["groups_count"]]):
        total = 0
        for tier in range(layout.TIERS):
            wanted = sorted(expected.get((number, tier), []), key=lambda index: int(sims[index]["rest_sequence"]))
            listed = _listed(sims, int(group["head"][tier]))
            if listed != wanted:
                found.append(f"I5: group {number}, tier {tier} lists {listed}, the records say {wanted}")
            if (wanted[-1] if wanted else layout.NONE_INDEX) != group["tail"][tier]:
                found.append(f"I5: group {number}, tier {tier} ends with {group['tail'][tier]}")
            if bool(int(group["tiers"][tier >> 6]) >> (tier & 63) & 1) != bool(wanted):
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
        for tier in range(layout.TIERS):
            members = class_tiers.get((number, tier), set())
            words = [int(word) for word in sim_class["groups"][tier]]
            shown = {64 * word + bit for word, bits in enumerate(words) if bits for bit in range(64) if bits >> bit & 1}
            summary = sum(1 << word for word, bits in enumerate(words) if bits)
            if shown != members or int(sim_class["summary"][tier]) != summary:
                found.append(f"I5: class {number}, tier {tier} shows groups {shown}, it has {members}")
            if bool(int(sim_class["tiers"][tier >> 6]) >> (tier & 63) & 1) != bool(members):
                found.append(f"I5: class {number}: the bit of tier {tier} is wrong")
    return found


def _listed(sims: Table, head: int) -> list[int]:
    listed: list[int] = []
    while head != layout.NONE_INDEX and len(listed) <= len(sims):
        listed.append(head)
        head = int(sims[head]["next"])
    return listed


def _totals(header: Table, sims: Table, terminals: Table) -> list[str]:
    found = []
    by_sim = sum(int(count) for count in sims["counted_bytes"])
    by_terminal = sum(int(count) for count in terminals["counted_bytes"])
    if not by_sim == by_terminal == header["counted_bytes"]:
        found.append(f"I8: {by_sim} bytes over SIMs, {by_terminal} over terminals, total {header['counted_bytes']}")
    for column, counts in (("occupancy", header["occupancy_count"]), ("health", header["health_count"])):
        tally = Counter(int(value) for value in sims[column])
        for value, count in enumerate(counts):
            if tally[value] != count:
                found.append(f"I5: the count of SIMs with {column} {value} is {count}, there are {tally[value]}")
    return found
