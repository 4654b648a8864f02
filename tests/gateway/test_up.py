"""``epp up`` as a user has it: a command, signals, and what it prints."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
import yaml

from .conftest import is_running

ANY_PORTS = [
    word
    for flag in ("--port", "--metrics-port", "--grpc-port", "--health-port", "--admin-port")
    for word in (flag, "0")
]
OBJECTIVE = "x-llm-d-inference-objective"


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "epp", "up", *arguments]


@contextmanager
def running(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """Start ``epp up``; give it and what it printed when it was ready."""
    with subprocess.Popen(
        command("--json", *ANY_PORTS, *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, process.stderr.read() if process.stderr else ""
            yield process, json.loads(line)
        finally:
            process.kill()


def chat(url: str, **headers: str) -> dict[str, Any]:
    body = {"model": "any", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
    request = Request(
        f"{url}/v1/chat/completions",
        data=json.dumps(body).encode(),
        headers={"content-type": "application/json", **headers},
    )
    with urlopen(request, timeout=10) as response:
        answer = json.load(response)
    assert isinstance(answer, dict)
    return answer


def metrics_of(gateway: dict[str, Any]) -> str:
    with urlopen(gateway["metrics_url"], timeout=10) as response:
        page: bytes = response.read()
    return page.decode()


def wait_until(condition: Callable[[], bool], timeout_s: float = 10.0) -> bool:
    """Return whether ``condition`` became true in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def all_end(pids: dict[str, int]) -> bool:
    return wait_until(lambda: not any(is_running(pid) for pid in pids.values()))


def test_it_serves_until_ctrl_c() -> None:
    with running("--servers", "2", "--response-body", "duplex") as (process, gateway):
        assert list(gateway["pids"]) == ["server-1", "server-2", "epp", "envoy"]
        for headers in ({OBJECTIVE: "interactive"}, {}, {OBJECTIVE: "batch"}):
            assert chat(gateway["url"], **headers)["choices"]
        with urlopen(gateway["metrics_url"], timeout=10) as response:
            metrics = response.read().decode()
        assert 'priority="10"' in metrics
        assert 'priority="-10"' in metrics
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        assert all_end(gateway["pids"])
        assert process.stderr is not None
        assert process.stderr.read() == ""
        assert not Path(gateway["state_dir"]).exists()


def test_it_takes_a_configuration(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("""
plugins: [{type: concurrency-detector, parameters: {maxConcurrency: 7}}]
flowControl: {saturationDetector: {pluginRef: concurrency-detector}}
""")
    with running("--servers", "1", "--config-file", str(path)) as (_, gateway):
        assert chat(gateway["url"])["choices"]
        assert re.search(r"endpoint_concurrency_limit\{.*} 7.0", metrics_of(gateway))


def test_servers_have_their_slots_where_a_configuration_names_no_detector(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("flowControl: {maxRequests: 5}")
    with running("--servers", "1", "--slots", "3", "--config-file", str(path)) as (_, gateway):
        assert re.search(r"endpoint_concurrency_limit\{.*} 3.0", metrics_of(gateway))


def test_a_broken_configuration_is_refused_before_anything_is_started(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("flowControl: {maxRequests: -1}")
    answer = subprocess.run(
        command(*ANY_PORTS, "--config-file", str(path)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert answer.returncode == 2
    assert answer.stdout == ""
    assert answer.stderr.startswith(f"epp: {path}:1: flowControl.maxRequests: found -1; expected")


@pytest.mark.parametrize("part", ["server-1", "epp", "envoy"])
def test_the_death_of_a_part_ends_it(tmp_path: Path, part: str) -> None:
    with running("--servers", "1", "--state-dir", str(tmp_path)) as (process, gateway):
        os.kill(gateway["pids"][part], signal.SIGKILL)
        assert process.wait(20) == 1
        assert process.stderr is not None
        report = process.stderr.read()
        assert report.startswith(f"epp: {part} ended by itself (killed by SIGKILL)")
        assert all_end(gateway["pids"])


def test_a_part_that_does_not_start_is_named_with_its_reason(tmp_path: Path) -> None:
    envoy = tmp_path / "envoy"
    envoy.write_text("#!/bin/sh\n[ $1 = --version ] && echo version: 1 && exit\necho no; exit 7\n")
    envoy.chmod(0o755)
    answer = subprocess.run(
        command(*ANY_PORTS, "--servers", "1", "--envoy", str(envoy)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert answer.returncode == 1
    first, last = answer.stderr.splitlines()
    assert first.startswith("epp: envoy ended by itself (exit status 7); the last lines of ")
    assert last == "  | no"
    # What has failed can be looked up.
    log = Path(first.partition("lines of ")[2].removesuffix(":"))
    assert log.read_text() == "no\n"
    shutil.rmtree(log.parents[1])


def test_ctrl_c_while_it_starts(tmp_path: Path) -> None:
    with subprocess.Popen(command(*ANY_PORTS, "--state-dir", str(tmp_path))) as process:
        log = tmp_path / "logs" / "server-1.log"
        assert wait_until(log.exists)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0


def test_nothing_survives_its_death(tmp_path: Path) -> None:
    with running("--servers", "1", "--state-dir", str(tmp_path)) as (process, gateway):
        process.kill()
        assert all_end(gateway["pids"])


def test_manifests_and_servers_of_the_users_own(tmp_path: Path) -> None:
    manifests = tmp_path / "manifests"
    manifests.mkdir()
    with running("--servers", "1", "--state-dir", str(tmp_path / "one")) as (_, first):
        pool = yaml.safe_load((tmp_path / "one" / "manifests" / "pool.yaml").read_text())
        pool["spec"]["endpointPickerRef"]["failureMode"] = "FailClose"
        (manifests / "pool.yaml").write_text(yaml.safe_dump(pool))
        host, port = first["servers"][0].split(":")
        endpoint = {"name": "mine", "address": host, "port": int(port), "labels": {"app": "demo"}}
        (manifests / "endpoints.yaml").write_text(yaml.safe_dump({"endpoints": [endpoint]}))
        state = str(tmp_path / "two")
        with running("--manifests", str(manifests), "--state-dir", state) as (process, second):
            assert list(second["pids"]) == ["epp", "envoy"]
            assert second["servers"] == first["servers"]
            assert second["simulated"] is False
            assert chat(second["url"])["choices"]
            bootstrap = (tmp_path / "two" / "envoy" / "bootstrap.yaml").read_text()
            assert "failure_mode_allow" not in bootstrap
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
    # The user's directory stays.
    assert (tmp_path / "two" / "logs" / "epp.log").exists()


def test_manifests_without_endpoints_get_simulated_servers(tmp_path: Path) -> None:
    pool = {
        "apiVersion": "inference.networking.x-k8s.io/v1alpha2",
        "kind": "InferencePool",
        "metadata": {"name": "mine", "namespace": "team"},
        "spec": {
            "selector": {"model": "llama"},
            "targetPortNumber": 8000,
            "extensionRef": {"name": "epp"},
        },
    }
    manifests = tmp_path / "manifests"
    manifests.mkdir()
    (manifests / "pool.yaml").write_text(yaml.safe_dump(pool))
    arguments = ("--manifests", str(manifests), "--state-dir", str(tmp_path / "state"))
    with running("--servers", "1", *arguments) as (_, gateway):
        assert gateway["simulated"] is True
        assert gateway["manifests"][0] == str(manifests)
        assert chat(gateway["url"])["choices"]


def test_words_for_people() -> None:
    with subprocess.Popen(
        command(*ANY_PORTS, "--servers", "1"), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line.rstrip("\n"))
            if line.startswith("Ctrl-C"):
                break
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    assert [line.split(" ready")[0] for line in lines[:3]] == [
        "the model servers",
        "the endpoint picker",
        "Envoy",
    ]
    curls = [line for line in lines if line.startswith("curl ")]
    assert [f"{OBJECTIVE}: interactive" in line for line in curls] == [True, False, False]
    assert [f"{OBJECTIVE}: batch" in line for line in curls] == [False, False, True]


def refused(*arguments: str) -> str:
    answer = subprocess.run(
        command(*arguments), capture_output=True, text=True, timeout=30, check=False
    )
    assert answer.returncode == 2
    assert answer.stdout == ""
    assert len(answer.stderr.splitlines()) == 1
    return answer.stderr


def test_a_taken_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        assert refused(*ANY_PORTS, "--metrics-port", port).startswith(f"epp: port {port} cannot")


def test_no_envoy() -> None:
    assert "--envoy: /no/such is not" in refused(*ANY_PORTS, "--envoy", "/no/such")


def test_broken_manifests(tmp_path: Path) -> None:
    assert "missing: cannot be read" in refused(
        *ANY_PORTS, "--manifests", str(tmp_path / "missing")
    )
    (tmp_path / "pool.yaml").write_text("kind: InferencePool\n")
    assert "pool.yaml:1" in refused(*ANY_PORTS, "--manifests", str(tmp_path))


def test_a_state_directory_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    path = str(tmp_path / "file" / "state")
    assert f"--state-dir {path}: Not a directory" in refused(*ANY_PORTS, "--state-dir", path)


@pytest.mark.parametrize("arguments", [("--servers", "0"), ("--slots", "x"), ("--port", "65536")])
def test_numbers(arguments: tuple[str, str]) -> None:
    answer = subprocess.run(
        command(*arguments), capture_output=True, text=True, timeout=30, check=False
    )
    assert answer.returncode == 2
    assert f"argument {arguments[0]}: expected a whole number" in answer.stderr
