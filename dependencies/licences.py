"""Under which licences the packages of production.txt are, by their own metadata: ``python -m dependencies.licences``
writes licences.md (`make licences`).

What a package says counts, in this order: its SPDX expression, its licence field, its classifiers. Spellings from
before SPDX are translated by a table; one that it does not know stops the program, so that a person looks.
"""

from __future__ import annotations

import re
from importlib.metadata import metadata

from dependencies.lock import BASE, FOLDER, PRODUCTION, names

FILE = FOLDER / "licences.md"

ALLOWED = frozenset(
    {
        "0BSD",
        "Apache-2.0",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "CC0-1.0",
        "HPND",
        "ISC",
        "MIT",
        "PSF-2.0",
        "Unlicense",
        "Zlib",
    }
)
"""Licences that ask a user of the application for no more than keeping their text; a test compares. In a choice (OR)
one of these is enough."""

_SPDX = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache License 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "ISC License": "ISC",
    "MIT License": "MIT",
}


def licence_of(package: str) -> str:
    """As an SPDX expression. Raises ``PackageNotFoundError``, and ``ValueError`` when it says nothing that is known."""
    said = metadata(package)
    words = said.get_all("License-Expression") or []
    if not words:
        classifiers = said.get_all("Classifier") or []
        fields = [field for field in said.get_all("License") or [] if "\n" not in field]
        words = fields + [text.rpartition(" :: ")[2] for text in classifiers if text.startswith("License :: ")]
    for word in words:
        expression = _SPDX.get(word, word)
        if re.fullmatch(r"[A-Za-z0-9.+() -]+", expression) and ids(expression):
            return str(expression)
    raise ValueError(
        f"{package} says of its licence {words!r}: look at it, and add a spelling to dependencies/licences.py"
    )


def ids(expression: str) -> frozenset[str]:
    """The licences that an expression names; empty: it is none. An exception to one (WITH) only gives more."""
    words = re.sub(r" WITH [A-Za-z0-9.-]+", "", expression).replace("(", " ").replace(")", " ")
    found = [word.strip() for word in re.split(r" AND | OR ", words)]
    return frozenset() if any(" " in word or not word for word in found) else frozenset(found)


def allowed(expression: str) -> bool:
    parts = ids(expression)
    return bool(parts & ALLOWED) if " AND " not in expression else parts <= ALLOWED


def table() -> str:
    """The list, from the metadata of what is installed."""
    base = set(names(BASE))
    rows = [
        f"| {name} | {licence_of(name)} | {'base' if name in base else 'production'} |" for name in names(PRODUCTION)
    ]
    head = [
        "# Licences of what simswitch is deployed with",
        "",
        "Written by `make licences` from each package's own metadata; base.txt and production.txt have the releases.",
        "",
        "| package | licence (SPDX) | lock |",
        "| --- | --- | --- |",
    ]
    return "\n".join([*head, *rows, ""])


if __name__ == "__main__":
    FILE.write_text(table(), encoding="utf-8")
