import io
import json
import shlex

import msgspec

from epp.core.resources import Objective
from epp.gateway.terminal import Progress, RunningGateway, introduction, introduction_json


class Terminal(io.TextIOWrapper):
    def __init__(self, encoding: str) -> None:
        super().__init__(io.BytesIO(), encoding=encoding, newline="")

    def isatty(self) -> bool:
        return True

    def text(self) -> str:
        self.seek(0)
        return self.read()


GATEWAY = RunningGateway(
    url="http://127.0.0.1:8080",
    metrics_url="http://127.0.0.1:9090/metrics",
    ext_proc_address="127.0.0.1:9002",
    health_address="127.0.0.1:9003",
    envoy_admin_url="http://127.0.0.1:9901",
    state_dir="/state",
    manifests=("/manifests",),
    servers=(),
    simulated=False,
    pids={"epp": 1},
)


def examples(*objectives: Objective) -> list[list[str]]:
    lines = introduction(GATEWAY, objectives).splitlines()
    return [shlex.split(line) for line in lines if line.startswith("curl ")]


def test_a_terminal_gets_ticks() -> None:
    stream = Terminal("utf-8")
    progress = Progress(stream, quiet=False)
    progress.begin("starting Envoy")
    progress.done("Envoy ready")
    progress.say("all ready")
    assert stream.text() == "  … starting Envoy\r\x1b[K  ✓ Envoy ready\n\r\x1b[Kall ready\n"


def test_others_get_plain_lines() -> None:
    for stream in (io.StringIO(), Terminal("latin-1")):
        progress = Progress(stream, quiet=False)
        progress.begin("starting Envoy")
        progress.done("Envoy ready")
        progress.say("all ready")
        stream.seek(0)
        assert stream.read() == "Envoy ready\nall ready\n"


def test_quiet_says_nothing() -> None:
    stream = io.StringIO()
    progress = Progress(stream, quiet=True)
    progress.begin("a")
    progress.done("a")
    progress.say("a")
    assert stream.getvalue() == ""


def test_examples_go_from_the_highest_to_the_lowest_priority() -> None:
    commands = examples(
        Objective(name="low", priority=-1),
        Objective(name="high", priority=7),
        Objective(name="middle", priority=3),
    )
    headers = [word for command in commands for word in command if "objective" in word]
    assert headers == ["x-llm-d-inference-objective: high", "x-llm-d-inference-objective: low"]
    assert json.loads(commands[1][-1])["model"] == "YOUR-MODEL"
    assert len(commands) == 3


def test_examples_without_objectives() -> None:
    assert len(examples()) == 1
    assert len(examples(Objective(name="only", priority=1))) == 2


def test_json_is_one_line_with_everything() -> None:
    line = introduction_json(GATEWAY)
    assert "\n" not in line
    assert msgspec.convert(json.loads(line), RunningGateway) == GATEWAY
