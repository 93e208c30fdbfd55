"""The CSV of lots: one line for each purchase of SIMs.

    column               what                                                           when left out or empty
    -------------------  -------------------------------------------------------------  ----------------------
    name                 the lot's name, 1 to 64 bytes                                  refused
    supplier             name of the supplier that sold it                              refused
    plan                 name of the plan whose caps hold for it                        refused
    class                name of the class that its SIMs belong to                      refused
    carrier              whose network                                                  the plan's
    sims_count           SIMs bought                                                    not known
    cost_minor           what it cost, in the smallest unit of the currency             not known
    currency             ISO 4217: JPY                                                  not known
    purchase_date        2026-03-01                                                     not known
    active_from          first day on which the SIMs work: 2026-03-05                   they do
    valid_until          last day on which the SIMs work: 2027-02-28                    no end is known
    closing_day          last day of its billing cycle, 1 to 31                         the plan's
    payment              prepaid (a quota with an end of validity) or postpaid          not known
    check_digit_exempt   yes: the issuer's check digits deviate and are not looked at   no
    terms                the terms in words                                             none

Lots are few (some thousands at most), so they are read line by line.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from simswitch.inventory.problems import FileRefused
from simswitch.inventory.table import Column, Table, is_utf8

LOTS_MAX = 65_535

COLUMNS = (
    Column("name", True, "the lot's name"),
    Column("supplier", True, "who sold it"),
    Column("plan", True, "whose caps hold for it"),
    Column("class", True, "the class of its SIMs"),
    Column("carrier", False, "whose network"),
    Column("sims_count", False, "SIMs bought"),
    Column("cost_minor", False, "what it cost"),
    Column("currency", False, "of the cost"),
    Column("purchase_date", False, "when it was bought"),
    Column("active_from", False, "the first day on which the SIMs work"),
    Column("valid_until", False, "the last day on which the SIMs work"),
    Column("closing_day", False, "the last day of its billing cycle"),
    Column("payment", False, "prepaid or postpaid"),
    Column("check_digit_exempt", False, "yes when the issuer's check digits deviate"),
    Column("terms", False, "the terms in words"),
)
PAYMENTS = ("prepaid", "postpaid")
_YES = {"yes": True, "no": False, "": False}


@dataclass(frozen=True, slots=True)
class Lot:
    """One purchase."""

    name: str
    supplier: str
    plan: str
    sim_class: str
    carrier: str
    sims_count: int
    cost_minor: int | None
    currency: str
    purchase_date: str
    valid_until: str
    payment: str
    check_digit_exempt: bool
    terms: str
    active_from: str = ""
    closing_day: int = 0


def read_lots(path: Path, suppliers: Collection[str], plans: Collection[str], classes: Collection[str]) -> list[Lot]:
    """The lots of a file. Raises ``FileRefused`` with every problem of the file."""
    table = Table(path, COLUMNS)
    known = {"supplier": suppliers, "plan": plans, "class": classes}
    lots = []
    seen: dict[str, int] = {}
    for chunk in table.chunks():
        names = list(chunk.columns)
        for line, row in zip(chunk.lines, chunk.rows, strict=True):
            reader = _Line(table, line, dict(zip(names, row, strict=True)))
            lot = reader.lot(known)
            if lot.name in seen:
                table.add(
                    line, "name", lot.name, f"the same lot stands on line {seen[lot.name]}; leave one of them out"
                )
            seen.setdefault(lot.name, line)
            lots.append(lot)
    if not lots:
        table.add(0, "", "", "there is no lot in the file")
    if len(lots) > LOTS_MAX:
        table.add(0, "", "", f"more than {LOTS_MAX:,} lots")
    if table.problems:
        raise FileRefused(path, table.problems)
    return lots


class _Line:
    """One line of the file, from which each field is taken and checked."""

    def __init__(self, table: Table, line: int, fields: dict[str, str]) -> None:
        self._table = table
        self._line = line
        self._fields = fields

    def lot(self, known: dict[str, Collection[str]]) -> Lot:
        for column, value in self._fields.items():
            if not is_utf8(value):
                self._refuse(column, "this is not UTF-8; save the file as UTF-8")
        name = self._fields.get("name", "")
        if not 1 <= len(name.encode("utf-8", "surrogateescape")) <= 64:
            self._refuse("name", "a name of 1 to 64 bytes belongs here")
        for column, names in known.items():
            if self._fields.get(column, "") not in names:
                self._refuse(column, f"no such {column}; define it first")
        currency = self._fields.get("currency", "")
        cost_minor = self._number("cost_minor")
        if currency and not (len(currency) == 3 and currency.isascii() and currency.isalpha() and currency.isupper()):
            self._refuse("currency", "three capital letters as in ISO 4217 belong here, such as JPY")
        if cost_minor is not None and not currency:
            self._refuse("currency", "a cost needs its currency")
        payment = self._fields.get("payment", "")
        if payment and payment not in PAYMENTS:
            self._refuse("payment", f"{' or '.join(PAYMENTS)} belongs here")
        exempt = self._fields.get("check_digit_exempt", "")
        if exempt not in _YES:
            self._refuse("check_digit_exempt", "yes or no belongs here")
        purchase_date, valid_until = self._day("purchase_date"), self._day("valid_until")
        if purchase_date and valid_until and valid_until < purchase_date:
            self._refuse("valid_until", f"this lies before the purchase ({purchase_date})")
        active_from = self._day("active_from")
        if active_from and valid_until and valid_until < active_from:
            self._refuse("active_from", f"this lies after the last day ({valid_until})")
        closing_day = self._number("closing_day") or 0
        if closing_day > 31:
            self._refuse("closing_day", "a day of the month belongs here, 1 to 31")
        return Lot(
            name=name,
            supplier=self._fields.get("supplier", ""),
            plan=self._fields.get("plan", ""),
            sim_class=self._fields.get("class", ""),
            carrier=self._fields.get("carrier", ""),
            sims_count=self._number("sims_count") or 0,
            cost_minor=cost_minor,
            currency=currency,
            purchase_date=purchase_date,
            valid_until=valid_until,
            payment=payment,
            check_digit_exempt=_YES.get(exempt, False),
            terms=self._fields.get("terms", ""),
            active_from=active_from,
            closing_day=closing_day,
        )

    def _refuse(self, column: str, text: str) -> None:
        self._table.add(self._line, column, self._fields.get(column, ""), text)

    def _number(self, column: str) -> int | None:
        value = self._fields.get(column, "")
        if not value:
            return None
        if not (value.isascii() and value.isdigit() and len(value) <= 18):
            self._refuse(column, "a whole number belongs here, without separators")
            return None
        return int(value)

    def _day(self, column: str) -> str:
        value = self._fields.get(column, "")
        try:
            return date.fromisoformat(value).isoformat() if value else ""
        except ValueError:
            self._refuse(column, "a day such as 2026-03-01 belongs here")
            return ""
