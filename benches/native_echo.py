"""pygrpc-native alone: every request is answered with as many bytes as the service would give, and nothing is done.

``python -m benches.native_echo BYTES`` prints the port that it took, and ends when its standard input does. The front
is set up as the service sets it up, which asks for each call's metadata and deadline.
"""

from __future__ import annotations

import sys
import threading

from pygrpc_native import EVENT_CALL, NativeGrpcFront

from benches.rpc_client import PATH as ALLOCATE_SIMS

ALLOCATE = ALLOCATE_SIMS.removesuffix("Sims")


def answer(front: NativeGrpcFront, reply: bytes) -> None:
    while (events := front.recv_batch_details(256)) is not None:
        for event in events:
            if event[0] == EVENT_CALL:
                front.respond(event[1], reply)


def main() -> None:
    reply = bytes(int(sys.argv[1]))
    methods = [(ALLOCATE, False), (ALLOCATE_SIMS, False)]
    front = NativeGrpcFront("127.0.0.1:0", methods, io_threads=1, call_details=True)
    front.start()
    threading.Thread(target=answer, args=(front, reply), daemon=True).start()
    print(front.bound_port, flush=True)
    sys.stdin.read()
    front.close()


if __name__ == "__main__":
    main()
