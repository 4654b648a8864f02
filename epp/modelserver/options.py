"""What a simulated model server can be told."""

import msgspec

from epp.modelserver.engine import EngineOptions

__all__ = ["ModelServerOptions"]


class ModelServerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The outside of a server; ``engine`` is its inside.

    ``port`` 0 takes any free one. Without ``models`` every model name is accepted; ``loras`` are
    the adapters, each of which takes one of the engine's slots. ``default_max_tokens`` is the
    length of an answer that names none. ``headers_with_first_token`` holds back the headers of a
    stream until its first token, as some engines do; vLLM sends them at once.
    """

    name: str = "modelserver"
    host: str = "127.0.0.1"
    port: int = 8000
    models: tuple[str, ...] = ()
    loras: tuple[str, ...] = ()
    default_max_tokens: int = 64
    max_body_bytes: int = 64 * 1024 * 1024
    headers_with_first_token: bool = False
    engine: EngineOptions = EngineOptions()

    @property
    def model_names(self) -> tuple[str, ...]:
        """The base models as the server lists them; the first one labels its metrics."""
        return self.models or ("simulated-model",)
