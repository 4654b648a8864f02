"""What only the path of a request tells: whether its answer is generated at all.

All else is told by the body's fields. But what is to be embedded looks like what is to be answered,
and what is to be counted like a chat: no field says that no token is going to be generated, and no
cache of prompts used.
"""

from typing import Final

__all__ = ["is_generating"]

_WITHOUT_OUTPUT: Final = frozenset(
    (b"embeddings", b"embed", b"pooling", b"classify", b"score", b"rerank",
     b"count_tokens", b"tokenize", b"detokenize")
)  # fmt: skip


def is_generating(path: bytes) -> bool:
    """Return whether tokens are generated for a request with this path, unless it is one of those
    that are known: embeddings, scores, ranks and classes, and what counts tokens.

    Only the path's last part counts, so that APIs may be put anywhere.
    """
    return path.partition(b"?")[0].rstrip(b"/").rpartition(b"/")[2] not in _WITHOUT_OUTPUT
