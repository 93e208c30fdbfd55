"""Generates ``engine/simswitch/v1`` from the contract beside this file: ``python proto/generate.py [TARGET]``.

``engine/simswitch/v1`` is committed and never edited. A test generates into another folder and compares, byte by byte,
so the version of grpcio-tools is part of the outcome: raising it (and the lower bounds of grpcio and protobuf, which
generated code checks when it is imported) is one deliberate change.
"""

from __future__ import annotations

import sys
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

PROTO = Path(__file__).resolve().parent
ENGINE = PROTO.parent / "engine"
PACKAGE = "simswitch/v1"
HEAD = '"""Generated from proto/simswitch/v1 by proto/generate.py: never edited."""\n'


def generate(target: Path) -> None:
    """Writes the generated package below ``target``; raises ``SystemExit`` when the contract does not compile."""
    package = target / PACKAGE
    package.mkdir(parents=True, exist_ok=True)
    for old in (*package.glob("*_pb2*.py"), *package.glob("*_pb2*.pyi")):
        old.unlink()
    plugin = Path(sys.executable).with_name("protoc-gen-mypy")
    plugin_grpc = Path(sys.executable).with_name("protoc-gen-mypy_grpc")
    status = protoc.main(
        [
            "protoc",
            f"-I{PROTO}",
            f"-I{Path(grpc_tools.__file__).parent / '_proto'}",
            f"--plugin=protoc-gen-mypy={plugin}",
            f"--plugin=protoc-gen-mypy_grpc={plugin_grpc}",
            f"--python_out={target}",
            f"--grpc_python_out={target}",
            f"--mypy_out=quiet:{target}",
            f"--mypy_grpc_out=quiet:{target}",
            *sorted(str(path) for path in (PROTO / PACKAGE).glob("*.proto")),
        ]
    )
    if status != 0:
        raise SystemExit(f"protoc ended with {status}")
    # A file without services has nothing for gRPC.
    for stub in package.glob("*_pb2_grpc.py"):
        if "class " not in stub.read_text(encoding="utf-8"):
            stub.unlink()
            stub.with_suffix(".pyi").unlink(missing_ok=True)
    (package / "__init__.py").write_text(HEAD, encoding="utf-8")


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else ENGINE)
