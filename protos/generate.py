"""Generate the Python classes of the wire messages: ``python protos/generate.py [DIRECTORY]``.

Each ``protos/PATH.proto`` becomes ``DIRECTORY/PATH_pb2.py`` and ``.pyi``, by default in the project
itself. The path is part of the import names, hence ``epp/proxy/wire`` below ``protos``.
"""

import subprocess
import sys
from pathlib import Path

_PROTOS = Path(__file__).resolve().parent


def main(output: Path) -> None:
    """Run the protocol buffer compiler of grpcio-tools on every definition."""
    sources = sorted(str(path.relative_to(_PROTOS)) for path in _PROTOS.rglob("*.proto"))
    compiler = [sys.executable, "-m", "grpc_tools.protoc", f"-I{_PROTOS}"]
    output.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        [*compiler, f"--python_out={output}", f"--pyi_out={output}", *sources], check=True
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else _PROTOS.parent)
