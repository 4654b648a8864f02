"""Whether the distribution's ``gateway`` extra is installed."""

from importlib.util import find_spec

from epp.errors import UsageError

__all__ = ["require_extra"]


def require_extra() -> None:
    """Raise :class:`UsageError` unless Envoy's configuration classes are there."""
    if find_spec("envoy_data_plane") is None or find_spec("betterproto2") is None:
        raise UsageError(
            "Envoy's configuration classes are not installed: "
            "pip install 'inference-epp[gateway]' (envoy-data-plane)"
        )
