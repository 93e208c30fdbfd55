"""A report as a structure, and the same structure as Markdown and as HTML that prints well (and so as PDF).

Texts are in two languages; a report is rendered in one of them. What comes from files or records is escaped in both
forms: it is text, never markup.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from simswitch.plain_text import escaped

Words = dict[str, str]
"""A text by language: ``ja`` and ``en``."""
Cell = int | str | Words


def both(ja: str, en: str) -> Words:
    """A text in both languages."""
    return {"ja": ja, "en": en}


@dataclass(frozen=True, slots=True)
class Text:
    """Lines under one label, and the records that they were counted from."""

    lines: list[Words]
    records: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """Labels with texts, or a table, or both."""

    title: Words
    rows: list[tuple[Words, Text]] = field(default_factory=list)
    head: list[Words] = field(default_factory=list)
    table: list[list[Cell]] = field(default_factory=list)
    note: Words | None = None


@dataclass(frozen=True, slots=True)
class Report:
    title: Words
    sections: list[Section]


def _plain(text: str) -> str:
    """What moves a terminal's cursor or turns the direction of writing is shown and not done."""
    return escaped(text.replace("\r\n", "\n"), "\n\t")


def _shown(value: Cell, language: str) -> str:
    if isinstance(value, dict):
        return value[language]
    return f"{value:,}" if isinstance(value, int) else value


def _escaped(text: str) -> str:
    """Text that Markdown shows as it stands, in a table's cell too. Code between backticks stays code."""
    parts = re.split(r"(`[^`|]*`)", _plain(text))
    parts[::2] = [re.sub(r"([\\*_\[\]<>#|`&~])", r"\\\1", part) for part in parts[::2]]
    return "".join(parts).replace("\n", " ")


def markdown(report: Report, language: str) -> str:
    """The report as Markdown."""
    lines = [f"# {_escaped(report.title[language])}", ""]
    for section in report.sections:
        lines += [f"## {_escaped(section.title[language])}", ""]
        if section.rows:
            lines += ["| | |", "| --- | --- |"]
            for label, text in section.rows:
                shown = [_escaped(line[language]) for line in text.lines]
                if text.records:
                    shown.append(f"<small>{_escaped(text.records)}</small>")
                lines.append(f"| {_escaped(label[language])} | {'<br>'.join(shown) or '-'} |")
            lines.append("")
        if section.head:
            lines.append("| " + " | ".join(_escaped(cell[language]) for cell in section.head) + " |")
            lines.append("| " + " | ".join("---" for _ in section.head) + " |")
            for row in section.table:
                lines.append("| " + " | ".join(_escaped(_shown(cell, language)) for cell in row) + " |")
            lines.append("")
        if section.note:
            lines += [_escaped(section.note[language]), ""]
    return "\n".join(lines).rstrip() + "\n"


_PAGE = """<!doctype html>
<html lang="{{ language }}">
<head>
<meta charset="utf-8">
<title>{{ report.title[language] }}</title>
<style>
@page { size: A4; margin: 18mm 15mm; }
body { font: 10pt/1.5 "Noto Sans CJK JP", "Noto Sans JP", "Hiragino Sans", "Yu Gothic", sans-serif;
       max-width: 190mm; margin: 2em auto; color: #1c1c1c; }
h1 { font-size: 16pt; border-bottom: 2px solid #1f618d; }
h2 { font-size: 12pt; margin-top: 1.6em; break-after: avoid; }
table { border-collapse: collapse; width: 100%; }
th, td { border: 1px solid #888; padding: 0.35em 0.6em; vertical-align: top; text-align: left; }
th { background: #eef3f7; font-weight: 600; }
table.labels th { width: 24%; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
tr { break-inside: avoid; }
.records, .note { color: #666; font-size: 8pt; }
p { margin: 0 0 0.3em; }
@media print { body { margin: 0; max-width: none; } }
</style>
</head>
<body>
<h1>{{ report.title[language] }}</h1>
{% for section in report.sections %}
<h2>{{ section.title[language] }}</h2>
{% if section.rows %}
<table class="labels">
{% for label, text in section.rows %}
<tr><th scope="row">{{ label[language] }}</th><td>
{% for line in text.lines %}
<p>{{ line[language] }}</p>
{% else %}
-
{% endfor %}
{% if text.records %}
<div class="records">{{ text.records }}</div>
{% endif %}
</td></tr>
{% endfor %}
</table>
{% endif %}
{% if section.head %}
<table>
<tr>{% for cell in section.head %}<th>{{ cell[language] }}</th>{% endfor %}</tr>
{% for row in section.table %}
<tr>
{% for cell in row %}
<td{% if cell is number %} class="number"{% endif %}>{{ shown(cell, language) }}</td>
{% endfor %}
</tr>
{% endfor %}
</table>
{% endif %}
{% if section.note %}
<p class="note">{{ section.note[language] }}</p>
{% endif %}
{% endfor %}
</body>
</html>
"""


def _finished(value: object) -> object:
    return _plain(value) if isinstance(value, str) else value


def html(report: Report, language: str) -> str:
    """The report as one HTML page without anything from outside. Needs Jinja."""
    import jinja2

    environment = jinja2.Environment(autoescape=True, finalize=_finished, trim_blocks=True, lstrip_blocks=True)
    page = environment.from_string(_PAGE)
    return page.render(report=report, language=language, shown=_shown) + "\n"
