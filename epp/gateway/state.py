"""What ``epp up`` keeps on disk while it runs: manifests, Envoy's files, logs."""

import shutil
import tempfile
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path

import yaml

from epp.core.resources import Endpoint, PoolSpec
from epp.errors import UsageError

__all__ = ["StateDirectory"]

_DEFAULT_MANIFESTS = ("pool.yaml", "objectives.yaml")
_ENDPOINTS_HEADER = """\
# The simulated model servers of this `epp up`. Written anew at each start; until then, changes take
# effect at once.
"""


class StateDirectory:
    """The directory of one run; a temporary one, which :meth:`remove` removes, for ``None``.

    Raises :class:`UsageError` when ``path`` cannot be used.
    """

    def __init__(self, path: Path | None) -> None:
        self._is_temporary = path is None
        try:
            if path is None:
                self.path = Path(tempfile.mkdtemp(prefix="epp-up-"))
            else:
                self.path = path.expanduser().absolute()
                self.path.mkdir(parents=True, exist_ok=True)
            self.logs = self._directory("logs")
        except OSError as error:
            raise UsageError(f"--state-dir {path}: {error.strerror or error}") from None

    @property
    def eds_file(self) -> Path:
        """The endpoints file that the EPP writes and Envoy watches, in a directory of its own."""
        return self._directory("envoy") / "eds.json"

    def write_bootstrap(self, text: str) -> Path:
        """Keep Envoy's bootstrap, and return where."""
        path = self._directory("envoy") / "bootstrap.yaml"
        path.write_text(text)
        return path

    def default_manifests(self) -> Path:
        """Return a directory with the pool and objectives to start with; edited ones are kept."""
        directory = self._directory("manifests")
        for name in _DEFAULT_MANIFESTS:
            if not (directory / name).exists():
                text = (files("epp.gateway") / "manifests" / name).read_text()
                (directory / name).write_text(text)
        return directory

    def write_endpoints(self, pool: PoolSpec, endpoints: Iterable[Endpoint]) -> Path:
        """Write ``endpoints`` as members of ``pool``; return the directory with that file alone."""
        entries = [
            {
                "name": endpoint.name,
                "namespace": pool.namespace,
                "address": endpoint.address,
                "port": endpoint.port,
                "labels": dict(pool.selector),
            }
            for endpoint in endpoints
        ]
        directory = self._directory("servers")
        text = yaml.safe_dump({"endpoints": entries}, sort_keys=False)
        (directory / "endpoints.yaml").write_text(_ENDPOINTS_HEADER + text)
        return directory

    def remove(self) -> None:
        """Remove the directory, unless it is the user's own."""
        if self._is_temporary:
            shutil.rmtree(self.path, ignore_errors=True)

    def _directory(self, name: str) -> Path:
        directory = self.path / name
        directory.mkdir(exist_ok=True)
        return directory
