"""Load on a running service: terminals come, stay and leave at a rate that is held, or said to be missed.

    run (one process) ─┬─▶ worker ── access servers: schedule ─▶ calls ─▶ service
                       └─▶ worker ── …
       figures ◀── one record for each operation, with the instant at which it was due

The load is an open loop: the schedule says when each operation is due, whatever became of the ones before it, and an
operation's latency counts from that instant. A service that stalls for a second is charged with every operation that
was due in that second, not with the one call that happened to be under way.

Importing this package is cheap; what it needs comes with the first name that is used.
"""
