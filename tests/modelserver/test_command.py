import argparse
import json
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from epp.modelserver import command
from epp.modelserver.options import ModelServerOptions

_RUN = """
import argparse, sys
from epp.errors import UsageError
from epp.modelserver.command import add_parser

parser = argparse.ArgumentParser(prog="epp")
add_parser(parser.add_subparsers())
args = parser.parse_args()
try:
    sys.exit(args.run(args))
except UsageError as error:
    sys.exit(f"epp: {error}")
"""


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="epp")
    command.add_parser(parser.add_subparsers())
    return parser.parse_args(["modelserver", *words])


@contextmanager
def server(*words: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run the command; yield its process and the URL that it printed."""
    process = subprocess.Popen(
        [sys.executable, "-c", _RUN, "modelserver", *words], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        ready = re.fullmatch(r"epp modelserver (\S+) ready on (http://127\.0\.0\.1:\d+)\n", line)
        assert ready, line
        yield process, ready[2]
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_until_a_signal(number: signal.Signals) -> None:
    with server("--port", "0", "--name", "one", "--time-scale", "1000") as (process, url):
        body = json.dumps({"model": "m", "prompt": "Hello", "max_tokens": 3}).encode()
        with urllib.request.urlopen(f"{url}/v1/completions", body) as response:
            assert response.headers["x-served-by"] == "one"
            assert json.load(response)["usage"]["completion_tokens"] == 3
        process.send_signal(number)
        assert process.wait(10) == 0


def test_it_stops_with_requests_open() -> None:
    with server("--port", "0") as (process, url):
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as client:
            body = b'{"model":"m","prompt":"x","stream":true,"max_tokens":9999}'
            head = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"
            client.sendall(head % len(body) + body)
            assert client.recv(9) == b"HTTP/1.1 "
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0


def test_a_reset_is_a_reset_on_its_event_loop_too() -> None:
    with server("--port", "0", "--time-scale", "1000") as (_, url):
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as client:
            fault = b'x-modelserver-fault: {"reset_after_tokens": 2}\r\n'
            body = b'{"model":"m","prompt":"x","stream":true}'
            head = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\n%scontent-length: %d\r\n\r\n"
            client.sendall(head % (fault, len(body)) + body)
            received = client.recv(65_536)
            while received.count(b"\n\n") < 2:
                received += client.recv(65_536)
            assert received.count(b"data: ") == 2
            with pytest.raises(ConnectionResetError):
                client.recv(65_536)


def test_the_defaults_are_those_of_the_options() -> None:
    assert command._options(parse()) == ModelServerOptions()


def test_options_reach_the_server() -> None:
    options = command._options(
        parse(
            *("--model", "a", "--model", "b", "--lora", "c", "--max-num-seqs", "2"),
            *("--no-prefix-caching", "--decode-step-s", "0.5", "--default-max-tokens", "7"),
        )
    )
    assert options.models == ("a", "b")
    assert options.loras == ("c",)
    assert options.engine.max_num_seqs == 2
    assert not options.engine.prefix_caching
    assert options.engine.latency.decode_step_s == 0.5
    assert options.default_max_tokens == 7


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--port", "65536"], "at least 0 and at most 65535, got '65536'"),
        (["--max-num-seqs", "0"], "expected a whole number of at least 1, got '0'"),
        (["--max-num-seqs", "1.5"], "expected a whole number of at least 1, got '1.5'"),
        (["--time-scale", "0"], "expected a number above 0, got '0'"),
        (["--time-scale", "inf"], "expected a number above 0, got 'inf'"),
        (["--decode-step-s", "-1"], "expected seconds, at least 0, got '-1'"),
        (["--decode-step-s", "soon"], "expected seconds, at least 0, got 'soon'"),
    ],
)
def test_impossible_values_are_refused(
    words: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(*words)
    assert caught.value.code == 2
    assert why in capsys.readouterr().err
