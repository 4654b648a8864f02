"""What a path says of a collection."""

import pytest

from epp.discovery.kubernetes.watch.collection import Collection


@pytest.mark.parametrize(
    ("path", "parts", "text"),
    [
        ("/api/v1/namespaces/x/pods", ("", "v1", "x", "pods"), "pods in namespace x"),
        ("/api/v1/nodes", ("", "v1", "", "nodes"), "nodes"),
        ("/apis/a.io/v1/namespaces/x/y", ("a.io", "v1", "x", "y"), "y.a.io in namespace x"),
        ("/apis/a.io/v1/y", ("a.io", "v1", "", "y"), "y.a.io"),
    ],
)
def test_paths(path: str, parts: tuple[str, ...], text: str) -> None:
    assert Collection.of(path) == parts
    assert str(Collection.of(path)) == text


@pytest.mark.parametrize(
    "path", ["", "/apis", "/api/v1", "/api/v1/namespaces/x/pods/a", "/healthz"]
)
def test_what_is_none(path: str) -> None:
    with pytest.raises(ValueError, match="is not the path of a collection"):
        Collection.of(path)
