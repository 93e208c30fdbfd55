"""The journal: what the cell was told, in order, durable before anything is answered.

``format`` specifies the bytes of a segment, ``walk`` reads them back by a decision table, ``append`` writes them,
``snapshot`` keeps whole states, ``recovery`` puts a machine together from both, ``follower`` does the same all the time
in a process of its own, and ``inspect`` tells a person what a data folder holds. ``disk`` is all that they may do to a
disk.
"""
