import json
import os
from pathlib import Path

import pytest
from envoy_data_plane.envoy.config.endpoint import v3 as endpoint_v3
from envoy_data_plane.envoy.service.discovery import v3 as discovery

from epp.core.resources import Endpoint
from epp.proxy.eds import EDS_CLUSTER, eds_document, write_eds

ENDPOINTS = [
    Endpoint(name="a", address="10.0.0.1", port=8000),
    Endpoint(name="b", address="2001:db8::1", port=8001),
]


def addresses(document: bytes) -> list[tuple[str, int]]:
    """Read a document with Envoy's own message classes, which refuse what they do not know."""
    response = discovery.DiscoveryResponse.from_json(document)
    assignments = [resource.unpack() for resource in response.resources]
    assert [type(assignment) for assignment in assignments] == [endpoint_v3.ClusterLoadAssignment]
    (assignment,) = assignments
    assert assignment.cluster_name == EDS_CLUSTER
    sockets = [
        endpoint.endpoint.address.socket_address
        for locality in assignment.endpoints
        for endpoint in locality.lb_endpoints
    ]
    return [(socket.address, socket.port_value) for socket in sockets]


def test_the_document_is_what_envoy_expects() -> None:
    assert addresses(eds_document(ENDPOINTS)) == [("10.0.0.1", 8000), ("2001:db8::1", 8001)]
    assert addresses(eds_document([])) == []


def test_a_destination_is_listed_once() -> None:
    twice = [*ENDPOINTS, Endpoint(name="c", address="10.0.0.1", port=8000)]
    assert addresses(eds_document(twice)) == addresses(eds_document(ENDPOINTS))


def test_the_version_follows_the_content() -> None:
    versions = [
        json.loads(eds_document(endpoints))["version_info"]
        for endpoints in (ENDPOINTS, list(ENDPOINTS), ENDPOINTS[:1])
    ]
    assert versions[0] == versions[1] != versions[2]


def test_an_unchanged_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "eds.json"
    assert write_eds(path, ENDPOINTS)
    before = path.stat()
    assert not write_eds(path, ENDPOINTS)
    assert path.stat() == before
    assert write_eds(path, ENDPOINTS[:1])
    assert addresses(path.read_bytes()) == [("10.0.0.1", 8000)]


def test_a_change_replaces_the_file(tmp_path: Path) -> None:
    path = tmp_path / "eds.json"
    write_eds(path, ENDPOINTS)
    with path.open("rb") as reader:
        write_eds(path, [])
        # Whoever had opened the old file reads all of it.
        assert len(addresses(reader.read())) == 2
    assert os.listdir(tmp_path) == ["eds.json"]


def test_a_missing_directory_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_eds(tmp_path / "nowhere" / "eds.json", ENDPOINTS)
