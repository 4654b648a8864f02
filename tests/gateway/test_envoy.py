"""What a real Envoy does with the bootstrap."""

import asyncio
import base64
import json

import pytest
from envoy_data_plane.google import protobuf

from epp.core.resources import Endpoint
from epp.proxy.eds import write_eds

from .conftest import ModelServer, StandInPicker, StartGateway, eventually

DESTINATION = "x-gateway-destination-endpoint"
SUBSET_NAMESPACE = "envoy.lb.subset_hint"


async def test_the_destination_header_chooses_the_server(
    start_gateway: StartGateway, model_servers: list[ModelServer]
) -> None:
    gateway = await start_gateway(ext_proc_enabled=False, strip_destination=False)
    for server in model_servers * 3:
        found = await gateway.server_for(x_gateway_destination_endpoint=server.destination)
        assert found == server.name


@pytest.mark.parametrize("body_bytes", [0, 300_000])
async def test_the_next_server_of_the_list_takes_over_from_a_dead_one(
    start_gateway: StartGateway,
    model_servers: list[ModelServer],
    dead_port: int,
    body_bytes: int,
) -> None:
    gateway = await start_gateway(ext_proc_enabled=False, strip_destination=False)
    dead = Endpoint(name="dead", address="127.0.0.1", port=dead_port)
    live = model_servers[1]
    write_eds(gateway.eds_path, [dead, *(server.endpoint for server in model_servers)])
    await eventually(lambda: gateway.shows("cluster.inference_pool.membership_total", 3))
    headers = {DESTINATION: f"127.0.0.1:{dead_port},{live.destination}"}
    for _ in range(5):
        async with gateway.client.post(
            gateway.url, headers=headers, data=b"x" * body_bytes
        ) as response:
            assert response.status == 200
            answer = await response.json()
        assert (answer["server"], answer["body_bytes"]) == (live.name, body_bytes)
    assert model_servers[0].requests == 0
    assert await gateway.statistic("cluster.inference_pool.upstream_cx_connect_fail") > 0


async def test_without_a_destination_every_server_gets_its_share(
    start_gateway: StartGateway, model_servers: list[ModelServer]
) -> None:
    gateway = await start_gateway(ext_proc_enabled=False)
    found = {await gateway.server_for() for _ in range(40)}
    assert found == {server.name for server in model_servers}


async def test_a_destination_outside_the_pool_is_not_reached(
    start_gateway: StartGateway, model_servers: list[ModelServer]
) -> None:
    gateway = await start_gateway(ext_proc_enabled=False, strip_destination=False)
    outsider = model_servers[1]
    write_eds(gateway.eds_path, [model_servers[0].endpoint])

    async def serves_itself() -> bool:
        headers = {"x_gateway_destination_endpoint": outsider.destination}
        return {await gateway.server_for(**headers) for _ in range(10)} == {"one"}

    await eventually(serves_itself)


async def test_a_client_cannot_name_its_destination(
    start_gateway: StartGateway, model_servers: list[ModelServer]
) -> None:
    gateway = await start_gateway(ext_proc_enabled=False)
    wanted = model_servers[0].destination
    found = {await gateway.server_for(x_gateway_destination_endpoint=wanted) for _ in range(40)}
    assert found == {"one", "two"}


async def test_a_changed_endpoints_file_is_followed(
    start_gateway: StartGateway, model_servers: list[ModelServer]
) -> None:
    gateway = await start_gateway(ext_proc_enabled=False)
    for server in model_servers * 2:
        write_eds(gateway.eds_path, [server.endpoint])

        async def serves(name: str = server.name) -> bool:
            return {await gateway.server_for() for _ in range(10)} == {name}

        await eventually(serves)


async def test_an_empty_pool_is_a_503(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(ext_proc_enabled=False)
    write_eds(gateway.eds_path, [])

    async def refuses() -> bool:
        async with gateway.client.get(gateway.url) as response:
            return response.status == 503

    await eventually(refuses)


@pytest.mark.parametrize("body_bytes", [0, 5, 100_000])
@pytest.mark.parametrize(("fail_open", "status"), [(True, 200), (False, 503)])
async def test_without_an_epp_the_failure_mode_decides(
    start_gateway: StartGateway, dead_port: int, fail_open: bool, status: int, body_bytes: int
) -> None:
    gateway = await start_gateway(ext_proc_port=dead_port, fail_open=fail_open)
    async with gateway.client.post(gateway.url, data=b"x" * body_bytes) as response:
        assert response.status == status
        if fail_open:
            assert (await response.json())["body_bytes"] == body_bytes


async def test_the_epp_chooses_and_learns_who_served(
    start_gateway: StartGateway,
    model_servers: list[ModelServer],
    picker: StandInPicker,
    dead_port: int,
) -> None:
    gateway = await start_gateway(ext_proc_port=picker.port, fail_open=False)
    live = model_servers[1]
    dead = Endpoint(name="dead", address="127.0.0.1", port=dead_port)
    write_eds(gateway.eds_path, [dead, *(server.endpoint for server in model_servers)])
    await eventually(lambda: gateway.shows("cluster.inference_pool.membership_total", 3))
    picker.destination = f"{dead.destination},{live.destination}"
    async with gateway.client.post(gateway.url, data=b"hello") as response:
        assert (await response.json())["server"] == live.name
    headers = next(message for message in picker.seen if message.response_headers is not None)
    attributes = headers.attributes["envoy.filters.http.ext_proc"].to_dict()
    assert attributes == {"upstream.address": live.destination}
    assert headers.metadata_context is not None
    served = headers.metadata_context.filter_metadata["envoy.lb"].to_dict()
    assert served == {"x-gateway-destination-endpoint-served": live.destination}


async def test_a_request_waits_while_the_epp_restarts(
    start_gateway: StartGateway, model_servers: list[ModelServer], picker: StandInPicker
) -> None:
    gateway = await start_gateway(ext_proc_port=picker.port, fail_open=False)
    picker.destination = model_servers[1].destination
    await picker.stop()

    async def ask() -> tuple[int, str]:
        async with gateway.client.post(gateway.url, data=b"x" * 30_000) as response:
            return response.status, (await response.json())["server"]

    waiting = asyncio.create_task(ask())

    async def knocked() -> bool:
        return await gateway.statistic("cluster.ext_proc.upstream_cx_connect_fail") >= 1

    await eventually(knocked)
    assert not waiting.done()
    await picker.start(picker.port)
    assert await waiting == (200, "two")


async def test_fail_open_follows_the_health_of_the_epp(
    start_gateway: StartGateway, model_servers: list[ModelServer], picker: StandInPicker
) -> None:
    picker.destination = model_servers[1].destination
    gateway = await start_gateway(ext_proc_port=picker.port, fail_open=True)
    assert {await gateway.server_for() for _ in range(20)} == {"two"}
    await picker.stop()

    async def goes_on_without() -> bool:
        async with gateway.client.post(gateway.url, data=b"x" * 100_000) as response:
            return response.status == 200 and (await response.json())["body_bytes"] == 100_000

    await eventually(goes_on_without)
    await picker.start(picker.port)

    async def is_asked_again() -> bool:
        return {await gateway.server_for() for _ in range(20)} == {"two"}

    await eventually(is_asked_again)


async def test_the_subset_hint_is_forwarded_as_a_list(
    start_gateway: StartGateway, model_servers: list[ModelServer], picker: StandInPicker
) -> None:
    picker.destination = model_servers[0].destination
    gateway = await start_gateway(
        ext_proc_port=picker.port,
        static_subset_hint=("127.0.0.1:1",),
        subset_hint_header="x-test-subset",
    )

    async def hint(**headers: str) -> object:
        picker.seen.clear()
        await gateway.server_for(**headers)
        context = picker.seen[0].metadata_context
        assert context is not None
        return context.filter_metadata[SUBSET_NAMESPACE].to_dict()[f"{DESTINATION}-subset"]

    def encoded(*destinations: str) -> str:
        return base64.b64encode(bytes(protobuf.Value.from_dict(list(destinations)))).decode()

    assert await hint() == ["127.0.0.1:1"]
    assert await hint(x_test_subset=encoded("127.0.0.1:2", "[::1]:3")) == ["127.0.0.1:2", "[::1]:3"]
    assert await hint(x_test_subset=encoded()) == []


async def test_headers_of_strangers(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(ext_proc_enabled=False)
    headers = {
        "x-request-id": "mine",
        "x-envoy-upstream-rq-timeout-ms": "1",
        "x-long": "a" * 65_536,
        DESTINATION: "10.0.0.1:80",
    }
    async with gateway.client.get(gateway.url, headers=headers) as response:
        assert response.status == 200
        assert not [name for name in response.headers if name.lower().startswith("x-envoy")]
        seen = {name.lower(): value for name, value in (await response.json())["headers"].items()}
    assert seen["x-request-id"] == "mine"
    assert len(seen["x-long"]) == 65_536
    assert DESTINATION not in seen
    assert "x-envoy-upstream-rq-timeout-ms" not in seen


async def test_http2_by_prior_knowledge(start_gateway: StartGateway) -> None:
    import h2.config
    import h2.connection
    import h2.events

    gateway = await start_gateway(ext_proc_enabled=False)
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    connection.initiate_connection()
    connection.send_headers(
        1,
        [(":method", "GET"), (":path", "/"), (":scheme", "http"), (":authority", "gateway")],
        end_stream=True,
    )
    body = b""
    ended = False
    async with asyncio.timeout(10):
        while not ended:
            writer.write(connection.data_to_send())
            for event in connection.receive_data(await reader.read(65_536)):
                if isinstance(event, h2.events.DataReceived):
                    body += event.data
                ended = ended or isinstance(event, h2.events.StreamEnded)
    writer.close()
    await writer.wait_closed()
    assert json.loads(body)["server"] in ("one", "two")


async def test_websockets_pass(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(ext_proc_enabled=False)
    async with gateway.client.ws_connect(gateway.url + "/ws") as socket:
        await socket.send_str("hello")
        assert await socket.receive_str(timeout=10) == "hello"
