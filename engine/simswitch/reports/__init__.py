"""Reports for people who were not there.

    rules        dated rule sets for accidents, as data
    accident     when service failed, for whom, and what that makes of it
    rendering    Markdown, and HTML that prints well, out of one structure

Every figure names the records that it was counted from. Jinja comes with ``simswitch[report]``.
"""
