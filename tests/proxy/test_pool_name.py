"""Where the gateway names the pool, and where a client cannot."""

from typing import Any

import pytest

from epp.core.claims import RequestClaims
from epp.core.exchange import Exchange, ExchangeLimits
from epp.proxy.messages import feed
from epp.proxy.pool_name import pool_name
from epp.proxy.wire import ext_proc_pb2

from ..core.support import RecordingStream
from .ext_proc_peer import headers

KEY = "x-gateway-inference-pool"

# As Envoy 1.40 writes it, with what else a route may have.
ROUTE = (
    'filter_metadata { key: "envoy.lb" value { fields { key: "x-gateway-inference-pool"'
    ' value { string_value: "default/of-route" } } } }'
    ' filter_metadata { key: "other" value { fields { key: "list" value { list_value {'
    ' values { string_value: "\\303\\274 \\"q\\" \\\\n" }'
    " values { null_value: NULL_VALUE } } } } } }"
    ' typed_filter_metadata { key: "typed" value {'
    ' type_url: "type.googleapis.com/google.protobuf.Struct" value: "\\n\\010\\n\\001a" } } '
)


def message(
    *, dynamic: dict[str, Any] | None = None, route: str | None = None
) -> ext_proc_pb2.ProcessingRequest:
    found = headers((KEY.encode(), b"default/of-client"), end=True)
    if dynamic is not None:
        found.metadata_context.filter_metadata["envoy.lb"].update(dynamic)
    if route is not None:
        found.attributes["envoy.filters.http.ext_proc"]["xds.route_metadata"] = route
    return found


@pytest.mark.parametrize(
    ("dynamic", "route", "name"),
    [
        (None, None, ""),
        ({KEY: "default/of-filter"}, None, "default/of-filter"),
        (None, ROUTE, "default/of-route"),
        ({KEY: "default/of-filter"}, ROUTE, "default/of-filter"),
        ({}, ROUTE, "default/of-route"),
        ({KEY: ""}, ROUTE, "default/of-route"),
        ({KEY: 7}, ROUTE, "default/of-route"),
        (None, "", ""),
        (None, ROUTE.replace("envoy.lb", "envoy.lc"), ""),
        (None, ROUTE.replace("string_value", "number_value"), ""),
        (None, ROUTE[:-9], ""),
        (None, "\x00 { nothing of ours", ""),
    ],
)
def test_the_name_is_where_the_gateway_writes_it(
    dynamic: dict[str, Any] | None, route: str | None, name: str
) -> None:
    assert pool_name(message(dynamic=dynamic, route=route)) == name


def test_looking_for_the_name_changes_nothing() -> None:
    found = message(dynamic={})
    before = found.SerializeToString(deterministic=True)
    pool_name(found)
    assert found.SerializeToString(deterministic=True) == before


class _Gate:
    """Keeps what it is asked."""

    def __init__(self) -> None:
        self.claims: list[RequestClaims] = []

    def pass_by(self, claims: RequestClaims, waiter: object, now: float) -> None:
        self.claims.append(claims)

    def withdraw(self, *_: object) -> None:
        raise AssertionError("nothing waits")


@pytest.mark.parametrize(("route", "name"), [(ROUTE, "default/of-route"), (None, "")])
def test_the_exchange_is_told(route: str | None, name: str) -> None:
    gate = _Gate()
    exchange = Exchange(RecordingStream(), lambda _: gate, ExchangeLimits())  # type: ignore[arg-type,return-value]
    feed(exchange, message(route=route).SerializeToString(), 0.0)
    assert [claims.pool for claims in gate.claims] == [name]
