"""Where pools, endpoints and objectives come from: every source hands over whole states."""

from epp.discovery.files import FileSource
from epp.discovery.problems import ManifestError

__all__ = ["FileSource", "ManifestError"]
