"""When the pool runs dry, and what to do about it.

Two constraints are always looked at together: volume (what the SIMs have left against what will be used) and
simultaneity (how many terminals want a SIM at once against how many SIMs are fit to be handed out).

    simultaneity    Engset and Erlang B, with peaks that all terminals share
    forecast        use by day, as paths that quantiles are read from
    volume          the pool under these paths: the day on which it runs dry
    purchase        how many SIMs to buy, and by when
    limits          the limit for each subscriber that would keep the month within the pool
    terms           what only people know: holidays, campaigns, offers, costs (a TOML file)
    plan            all of it together, and what would be if

SciPy and statsmodels come with ``simswitch[plan]`` and are imported where they are used.
"""
