"""Who one is to the API server, how that is known to be it, and what happens when that expires."""

import asyncio
import base64
import json
import ssl
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme

from epp.discovery.kubernetes.api.connection import ClusterConnection
from epp.discovery.kubernetes.api.credentials import ClusterCredentials
from epp.discovery.kubernetes.api.errors import ApiError, ApiUnreachable
from epp.errors import UsageError
from tests.discovery.kubernetes.scripted import ScriptedServer, answer, kubeconfig, refusal

PATH = "/api/v1/things"
_NO_TIME = timedelta(0)
OK = answer({})
NO = refusal(401, "Unauthorized", "expired")


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(autouse=True)
def outside_of_any_cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT", "KUBECONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def server_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1", "api.example.com").configure_cert(context)
    return context


def pem(authority: trustme.CA) -> bytes:
    return authority.cert_pem.bytes()


def written(path: Path, content: dict[str, Any]) -> Path:
    path.write_text(json.dumps(content))
    return path


def tokens(server: ScriptedServer) -> list[str | None]:
    return [request.headers.get("Authorization") for request in server.requests]


async def ask(connection: ClusterConnection, times: int = 1) -> None:
    for _ in range(times):
        await connection.get(PATH)


class ServiceAccount:
    """The directory that a kubelet keeps in a pod."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def write(self, token: str, authority: trustme.CA) -> None:
        (self.directory / "token").write_text(token)
        (self.directory / "ca.crt").write_bytes(pem(authority))


@pytest.fixture
def account(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[ScriptedServer], ServiceAccount]:
    def enter(server: ScriptedServer) -> ServiceAccount:
        host, _, port = server.url.removeprefix("https://").partition(":")
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
        return ServiceAccount(tmp_path)

    return enter


Enter = Callable[[ScriptedServer], ServiceAccount]


async def test_in_a_pod_the_service_account_is_taken_and_followed(
    account: Enter, authority: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")  # is not meant for this
    async with ScriptedServer(OK, NO, OK, OK, tls=server_tls(authority)) as server:
        pod = account(server)
        pod.write("first\n", authority)
        connection = ClusterConnection(service_account=pod.directory)
        await connection.open()
        assert connection.server == server.url
        await ask(connection)
        pod.write("second\n", authority)
        await ask(connection, 2)
        await connection.close()
        assert tokens(server) == ["Bearer first", "Bearer first"] + ["Bearer second"] * 2
        assert connection.statistics.counts == {("get", "200"): 3, ("get", "401"): 1}


async def test_a_second_refusal_is_the_answer(
    account: Enter, authority: trustme.CA, caplog: pytest.LogCaptureFixture
) -> None:
    async with ScriptedServer(NO, NO, NO, tls=server_tls(authority)) as server:
        pod = account(server)
        pod.write("t", authority)
        connection = ClusterConnection(service_account=pod.directory)
        await connection.open()
        with pytest.raises(ApiError, match="401 Unauthorized: expired"):
            await ask(connection)
        assert len(server.requests) == 2
        (pod.directory / "token").unlink()
        with pytest.raises(ApiError, match="401 Unauthorized: expired"):
            await ask(connection)
        assert len(server.requests) == 3
        await connection.close()
        assert "credentials stay as they are: service account" in caplog.text


async def test_many_refusals_at_once_are_one_reason_to_read_again(
    account: Enter, authority: trustme.CA, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="epp")
    async with ScriptedServer(*[NO] * 5, *[OK] * 5, tls=server_tls(authority)) as server:
        pod = account(server)
        pod.write("t", authority)
        connection = ClusterConnection(service_account=pod.directory)
        await connection.open()
        await asyncio.gather(*(ask(connection) for _ in range(5)))
        await connection.close()
        assert caplog.text.count("were read again") == 1


async def test_a_certificate_of_another_authority(account: Enter, authority: trustme.CA) -> None:
    async with ScriptedServer(OK, OK, tls=server_tls(authority)) as server:
        pod = account(server)
        pod.write("t", trustme.CA())
        connection = ClusterConnection(service_account=pod.directory)
        await connection.open()
        with pytest.raises(ApiUnreachable, match="certificate verify failed"):
            await ask(connection)
        assert server.requests == []
        pod.write("t", authority)  # the authority is replaced, as it is in a cluster
        await ask(connection)
        await connection.close()


async def test_a_kubeconfig_with_a_client_certificate_and_all_inline(
    tmp_path: Path, authority: trustme.CA
) -> None:
    context = server_tls(authority)
    context.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(context)
    mine = authority.issue_cert("someone@example.com")

    def inline(data: bytes) -> str:
        return base64.b64encode(data).decode()

    async with ScriptedServer(OK, tls=context) as server:
        user = {
            "client-certificate-data": inline(mine.cert_chain_pems[0].bytes()),
            "client-key-data": inline(mine.private_key_pem.bytes()),
        }
        trust = {"certificate-authority-data": inline(pem(authority))}
        path = written(tmp_path / "config", kubeconfig(server.url, user, **trust))
        connection = ClusterConnection(path)
        await connection.open()
        await ask(connection)
        await connection.close()
        assert tokens(server) == [None]


async def test_server_name_and_no_verification(tmp_path: Path, authority: trustme.CA) -> None:
    names: list[str | None] = []
    context = server_tls(authority)
    context.sni_callback = lambda _socket, name, _context: names.append(name)
    async with ScriptedServer(OK, OK, tls=context) as server:
        for cluster in (
            {"tls-server-name": "api.example.com", "certificate-authority": "ca.pem"},
            {"insecure-skip-tls-verify": True},
        ):
            (tmp_path / "ca.pem").write_bytes(pem(authority))  # relative to the kubeconfig
            path = written(tmp_path / "config", kubeconfig(server.url, **cluster))
            connection = ClusterConnection(path)
            await connection.open()
            await ask(connection)
            await connection.close()
        assert names == ["api.example.com", None]


async def test_a_token_file_is_read_again(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("first\n")
    async with ScriptedServer(OK, NO, OK) as server:
        path = written(tmp_path / "config", kubeconfig(server.url, {"tokenFile": "token"}))
        connection = ClusterConnection(path)
        await connection.open()
        await ask(connection)
        (tmp_path / "token").write_text("second\n")
        await ask(connection)
        await connection.close()
        assert tokens(server) == ["Bearer first", "Bearer first", "Bearer second"]


async def test_a_plugin_is_run_again(tmp_path: Path) -> None:
    counter = tmp_path / "runs"
    plugin = tmp_path / "plugin.py"
    plugin.write_text(f"""
import json, pathlib
counter = pathlib.Path({str(counter)!r})
runs = int(counter.read_text()) + 1 if counter.exists() else 1
counter.write_text(str(runs))
version = "client.authentication.k8s.io/v1"
status = {{"token": f"t{{runs}}", "expirationTimestamp": "2100-01-01T00:00:00Z"}}
print(json.dumps({{"apiVersion": version, "kind": "ExecCredential", "status": status}}))
""")
    user = {
        "exec": {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": sys.executable,
            "args": [str(plugin)],
        }
    }
    async with ScriptedServer(OK, NO, OK, OK) as server:
        connection = ClusterConnection(written(tmp_path / "config", kubeconfig(server.url, user)))
        await connection.open()
        await ask(connection, 3)
        await connection.close()
        assert tokens(server) == ["Bearer t1", "Bearer t1", "Bearer t2", "Bearer t2"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # how kubernetes_asyncio calls aiohttp
async def test_an_oidc_token_is_refreshed_once_and_only_by_who_is_known(
    tmp_path: Path, authority: trustme.CA
) -> None:
    def jwt(expires: int) -> str:
        body = base64.b64encode(json.dumps({"exp": expires}).encode()).decode().rstrip("=")
        return f"e30.{body}.sig"

    old, new = jwt(1), jwt(4_000_000_000)
    async with ScriptedServer(tls=server_tls(authority)) as provider:
        provider.release(
            answer({"token_endpoint": f"{provider.url}/token"}),
            answer({"id_token": new, "refresh_token": "r2"}),
        )
        settings = {
            "client-id": "c",
            "client-secret": "s",
            "idp-issuer-url": provider.url,
            "id-token": old,
            "refresh-token": "r1",
        }
        user = {"auth-provider": {"name": "oidc", "config": settings}}
        async with ScriptedServer(OK, NO, OK) as server:
            path = written(tmp_path / "config", kubeconfig(server.url, user))
            connection = ClusterConnection(path)
            with pytest.raises(UsageError, match="certificate verify failed"):
                await connection.open()
            assert provider.requests == []
            settings["idp-certificate-authority-data"] = base64.b64encode(pem(authority)).decode()
            written(path, kubeconfig(server.url, user))
            await connection.open()
            await ask(connection, 2)
            await connection.close()
            assert tokens(server) == [f"Bearer {new}"] * 3
            assert len(provider.requests) == 2
            assert b"refresh_token=r1" in provider.bodies[1]


async def test_which_kubeconfig_and_which_context(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def server(context: str | None = None, path: Path | None = None) -> str:
        credentials = ClusterCredentials(path, context, service_account=tmp_path / "none")
        await credentials.load()
        return credentials.server

    (tmp_path / ".kube").mkdir()
    written(tmp_path / ".kube" / "config", kubeconfig("http://usual:1/"))
    assert await server() == "http://usual:1"
    two = kubeconfig("http://one:1")
    two["clusters"].append({"name": "other", "cluster": {"server": "http://other:1"}})
    two["contexts"].append({"name": "far", "context": {"cluster": "other", "user": "u"}})
    first, second = written(tmp_path / "1", kubeconfig("http://1:1")), written(tmp_path / "2", two)
    monkeypatch.setenv("KUBECONFIG", f"{first}:{tmp_path / 'missing'}:{second}")
    assert await server() == "http://1:1"  # the first of those with the same name
    assert await server("far") == "http://other:1"
    assert await server(path=first) == "http://1:1"
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")  # but there is no token
    assert await server(path=first) == "http://1:1"


async def test_the_proxy_of_a_kubeconfig_or_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def proxy(**cluster: str) -> str | None:
        path = written(tmp_path / "config", kubeconfig("https://api.example.com:6443", **cluster))
        credentials = ClusterCredentials(path, None)
        await credentials.load()
        return credentials.proxy

    assert await proxy() is None
    monkeypatch.setenv("HTTPS_PROXY", "http://environment:3128")
    assert await proxy() == "http://environment:3128"
    assert await proxy(**{"proxy-url": "http://kubeconfig:3128"}) == "http://kubeconfig:3128"
    monkeypatch.setenv("NO_PROXY", ".example.com")
    assert await proxy() is None


def broken(**changes: Any) -> dict[str, Any]:
    return kubeconfig("https://127.0.0.1:1") | changes


@pytest.mark.parametrize(
    ("content", "context", "problem"),
    [
        (None, None, "kubeconfig {path}: no such file"),
        ("", None, "is not a kubeconfig that can be read (TypeError"),
        ("[]", None, "is not a kubeconfig that can be read"),
        ("a: {b", None, "kubeconfig {path} cannot be used: while parsing a flow mapping"),
        (broken(), "other", "Expected object with name other in {path}/contexts list"),
        (broken(**{"current-context": None}), None, "Expected key current-context in {path}"),
        (broken(clusters=[]), None, "Expected object with name c in {path}/clusters list"),
        (
            kubeconfig("https://127.0.0.1:1", **{"certificate-authority": "none.pem"}),
            None,
            "File does not exists: {directory}/none.pem",
        ),
        (
            kubeconfig("https://127.0.0.1:1", **{"certificate-authority-data": "bm8="}),
            None,
            "kubeconfig {path} cannot be used: [X509",
        ),
        (
            kubeconfig("https://x:1", {"exec": {"apiVersion": "v1", "command": "/no/plugin"}}),
            None,
            "cannot be used: [Errno 2] No such file or directory: '/no/plugin'",
        ),
    ],
)
async def test_what_is_wrong_with_a_kubeconfig_is_one_line(
    tmp_path: Path, content: Any, context: str | None, problem: str
) -> None:
    path = tmp_path / "config"
    if content is not None:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(UsageError) as caught:
        await ClusterConnection(path, context).open()
    assert problem.format(path=path, directory=tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


async def test_what_is_wrong_with_a_service_account_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "1")
    (tmp_path / "token").write_text("t")
    with pytest.raises(UsageError, match=f"^service account {tmp_path}: Service certification"):
        await ClusterConnection(service_account=tmp_path).open()


async def test_a_token_that_cannot_be_read_for_a_moment_is_the_last_one(
    account: Enter,
    authority: trustme.CA,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("kubernetes_asyncio.config.incluster_config.TOKEN_REFRESH_PERIOD", _NO_TIME)
    async with ScriptedServer(OK, OK, tls=server_tls(authority)) as server:
        pod = account(server)
        pod.write("t", authority)
        connection = ClusterConnection(service_account=pod.directory)
        await connection.open()
        pod.write("u", authority)
        await ask(connection)
        (pod.directory / "token").unlink()
        await ask(connection)
        await connection.close()
        assert tokens(server) == ["Bearer u"] * 2
        assert "service account token cannot be read" in caplog.text
