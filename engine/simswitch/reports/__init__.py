"""Reports for people who were not there.

    rules        dated rule sets for accidents, as data
    accident     when service failed or was degraded, for whom, and what that makes of it
    daily        the day's figures against those of the day before
    views        what of it each party may see
    rendering    Markdown, and HTML that prints well, out of one structure

Every figure names the records that it was counted from. Jinja comes with ``simswitch[report]``.
"""
