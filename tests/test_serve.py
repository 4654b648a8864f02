"""The command line of ``epp serve``: options, errors, and the composition behind them."""

import asyncio
from pathlib import Path

import aiohttp
import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from epp.cli import main
from epp.config import ServeOptions
from epp.core.flow.saturation import UtilizationOptions
from epp.errors import UsageError
from epp.service import Service

POOL = """
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {name: p}
spec:
  selector: {matchLabels: {app: a}}
  targetPorts: [{number: 8000}]
  endpointPickerRef: {name: epp, port: {number: 9002}}
"""


@pytest.fixture
def manifests(tmp_path: Path) -> Path:
    (tmp_path / "pool.yaml").write_text(POOL)
    return tmp_path


def options(manifests: Path, **changes: object) -> ServeOptions:
    values = {
        "manifests": (manifests,),
        "host": "127.0.0.1",
        "grpc_port": 0,
        "health_port": 0,
        "metrics_port": 0,
    }
    return ServeOptions(**(values | changes))  # type: ignore[arg-type]


async def test_starts_serves_probes_and_stops(manifests: Path) -> None:
    service = Service(options(manifests))
    async with service, aiohttp.ClientSession() as session:
        base = f"http://127.0.0.1:{service.observability.port}"
        for path in ("/healthz", "/readyz"):
            async with session.get(base + path) as response:
                assert response.status == 200
        async with session.get(base + "/metrics") as response:
            assert b"llm_d_epp_ready_endpoints" in await response.read()
        for port in (service.health_server.port, service.ext_proc.port):
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                stub = health_pb2_grpc.HealthStub(channel)
                answer = await stub.Check(health_pb2.HealthCheckRequest(service="readiness"))
                assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_is_alive_but_not_ready_while_it_drains(manifests: Path) -> None:
    service = Service(options(manifests))
    async with service, aiohttp.ClientSession() as session:
        await service.drain()
        base = f"http://127.0.0.1:{service.observability.port}"
        async with session.get(base + "/readyz") as response:
            assert response.status == 503
        async with session.get(base + "/healthz") as response:
            assert response.status == 200
        async with grpc.aio.insecure_channel(f"127.0.0.1:{service.ext_proc.port}") as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            for name, serving in (("liveness", True), ("", False)):
                answer = await stub.Check(health_pb2.HealthCheckRequest(service=name))
                assert (answer.status == health_pb2.HealthCheckResponse.SERVING) is serving


async def test_what_a_hostile_peer_does_is_counted(manifests: Path) -> None:
    async with Service(options(manifests, transport="http2")) as service:
        reader, writer = await asyncio.open_connection("127.0.0.1", service.ext_proc.port)
        writer.write(b"GET / HTTP/1.1\r\nhost: here\r\n\r\n")
        await asyncio.wait_for(reader.read(), 10)
        writer.close()
        await writer.wait_closed()
        counted = b'llm_d_epp_extproc_limits_met_total{limit="protocol_error"} 1.0'
        async with asyncio.timeout(10):
            while counted not in service.metrics.render():  # noqa: ASYNC110 - told by a page only
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("port", ["grpc_port", "health_port", "metrics_port"])
async def test_a_taken_port_is_one_clear_error(manifests: Path, port: str) -> None:
    async with Service(options(manifests)) as first:
        taken = first.observability.port
        with pytest.raises(UsageError, match=str(taken)):
            async with Service(options(manifests, **{port: taken})):
                pass


async def test_an_eds_file_that_cannot_be_written_is_one_clear_error(manifests: Path) -> None:
    path = manifests / "missing" / "eds.json"
    with pytest.raises(UsageError, match="--eds-file"):
        async with Service(options(manifests, eds_file=path)):
            pass


def test_broken_manifests_exit_with_2_and_say_where(
    manifests: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (manifests / "pool.yaml").write_text(POOL.replace("targetPorts", "targetPort"))
    arguments = ["--manifests", str(manifests), "--grpc-port", "0", "--health-port", "0"]
    assert main(["serve", *arguments, "--metrics-port", "0"]) == 2
    error = capsys.readouterr().err
    assert "pool.yaml" in error
    assert "targetPort" in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--grpc-port", "70000"], "'70000' is not a port"),
        (["--request-ttl", "soon"], "'soon' is not a number of seconds"),
        (["--max-concurrency", "0"], "'0' is not a whole number of at least 1"),
        (["--max-queued-bytes", "-1"], "'-1' is not a whole number of at least 1"),
    ],
)
def test_a_wrong_option_is_refused_by_name(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["serve", "--manifests", ".", *arguments])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert complaint in error
    assert arguments[0] in error


def options_of(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> ServeOptions:
    """What the service is made of by a command line."""
    seen: list[ServeOptions] = []

    def refuse(options: ServeOptions) -> Service:
        seen.append(options)
        raise UsageError("not really")

    monkeypatch.setattr("epp.service.Service", refuse)
    assert main(["serve", "--manifests", ".", *arguments]) == 2
    return seen[0]


def test_a_configuration_governs_flow_control_and_options_win(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("""
saturationDetector: {pluginRef: utilization-detector}
flowControl: {maxRequests: 7, defaultRequestTTL: 5s}
trust: {objective: false}
""")
    found = options_of(monkeypatch, "--config-file", str(path), "--request-ttl", "9")
    assert found.flow.limits.max_requests == 7
    assert found.flow.limits.wait_limit_s == 9
    assert found.saturation == UtilizationOptions()
    assert not found.claims.trust_objective


def test_without_a_configuration_there_are_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    found, default = options_of(monkeypatch), ServeOptions(manifests=())
    assert found.flow == default.flow
    assert found.saturation == default.saturation
    assert found.claims == default.claims


def test_what_a_configuration_says_in_vain_is_logged(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    options_of(monkeypatch, "--config-text", "featureGates: [haPopulateNonLeaderDatastore]")
    assert "haPopulateNonLeaderDatastore means nothing here" in capfd.readouterr().err


def test_a_broken_configuration_exits_with_2_and_says_where(
    manifests: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = manifests / "config"
    path.write_text("flowControl:\n  priorityBands:\n  - {priority: 1, maxRequests: -5}\n")
    assert main(["serve", "--manifests", str(manifests), "--config-file", str(path)]) == 2
    assert capsys.readouterr().err == (
        f"epp: {path}:3: flowControl.priorityBands[0].maxRequests: found -5; expected a quantity of"
        ' at least 0, such as 100, "5k" or "1Gi"\n'
    )
