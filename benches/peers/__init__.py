"""The same job done by Redis, PostgreSQL and SQLite, beside simswitch in the same run (``make bench-peers``).

The job: take a free healthy SIM of a class for a terminal, record it, durable before the answer; later give it back.
Each peer does it as a good engineer would write it for that peer, with its best settings that keep the promise.

| module | what it holds |
| --- | --- |
| ``contest`` | the rounds: everybody in turn, what they gave is checked, medians and ratios |
| ``client`` | the client processes, and how they are driven |
| ``redis_lua``, ``postgresql``, ``sqlite``, ``ours`` | one peer each: server, settings, statements, client |
| ``swap`` | 100,000 terminals moved in the books |
| ``servers``, ``install`` | starting and ending what is measured; its Debian packages |
"""
