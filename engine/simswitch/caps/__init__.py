"""Learning caps from what was observed: who is slowed, at which use, and what that says about the carrier's limits.

    throttle      usage reports → decisions that a SIM is slowed, or no longer (NumPy, in the follower's process)
    evidence      decisions and quiet days → observations of each window, censored
    survival      censored observations → the distribution of a cap, its 5 % quantile, its survival curve (SciPy)
    tiers         which window and which cap explains which speed, since when: change points retire old evidence
    picture       a cap's evidence and survival curve (matplotlib)

Nothing of it is part of the state machine: what it finds enters as a journaled command, so a replay needs no
statistics.
"""
