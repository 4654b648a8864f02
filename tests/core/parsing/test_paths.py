"""What paths tell."""

import pytest

from epp.core.parsing import is_generating


@pytest.mark.parametrize(
    "path",
    [
        b"/v1/embeddings", b"/embeddings/", b"/some/v1/embeddings?a=b/c",
        b"/v1/messages/count_tokens",
        b"/v1/messages/count_tokens?beta=true", b"/tokenize", b"/v1/rerank", b"/score", b"/pooling",
        b"/classify",
    ],
)  # fmt: skip
def test_nothing_is_generated(path: bytes) -> None:
    assert not is_generating(path)


@pytest.mark.parametrize(
    "path",
    [
        b"", b"/", b"/v1/chat/completions", b"/v1/messages", b"/generate",
        b"/inference/v1/generate",
        b"/v1/fooembeddings", b"/v1/embeddings/x", b"/v1/completions?embeddings", b"/V1/EMBEDDINGS",
    ],
)  # fmt: skip
def test_something_is(path: bytes) -> None:
    assert is_generating(path)
