"""The options of the process, and their defaults."""

from epp.config.options import ServeOptions

__all__ = ["ServeOptions"]
