"""The incident as a demonstration: a real server, real clients, simulated access servers, a compressed time scale.

plan.py      the figures: how many SIMs and terminals, how fast an access server is, the time scale
queue.py     an access server's operations: one honest queue that terminals and switches share
fleet.py     a process with some access servers, each a client of the service
run.py       the story: server, inventory, terminals, the carrier, the switch, the crash, the comparison
picture.py   both ways in one PNG
"""
