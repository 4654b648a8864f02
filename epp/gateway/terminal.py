"""What ``epp up`` says while it starts and once it runs."""

import json
import shlex
from collections.abc import Iterable
from typing import TextIO

import msgspec

from epp.core.resources import Objective

__all__ = ["Progress", "RunningGateway", "introduction", "introduction_json"]

_OBJECTIVE_HEADER = "x-llm-d-inference-objective"


class Progress:
    """Lines about the start: with ticks on a terminal, plain elsewhere, none when ``quiet``."""

    def __init__(self, stream: TextIO, quiet: bool) -> None:
        self._stream = stream
        self._quiet = quiet
        # The ticks need UTF-8 as well.
        self._is_terminal = stream.isatty() and stream.encoding.lower().startswith("utf")

    def begin(self, what: str) -> None:
        """Say what is being waited for."""
        if self._is_terminal:
            self._write(f"  … {what}")

    def done(self, what: str) -> None:
        """Say what is ready now."""
        self._write(f"\r\x1b[K  ✓ {what}\n" if self._is_terminal else f"{what}\n")

    def say(self, text: str) -> None:
        """Print whole lines, apart from the list of what was started."""
        self._write(f"\r\x1b[K{text}\n" if self._is_terminal else f"{text}\n")

    def _write(self, text: str) -> None:
        if not self._quiet:
            self._stream.write(text)
            self._stream.flush()


class RunningGateway(msgspec.Struct, frozen=True, kw_only=True):
    """Where everything of a running ``epp up`` is. Addresses are URLs or ``host:port``."""

    url: str
    metrics_url: str
    ext_proc_address: str
    health_address: str
    envoy_admin_url: str
    state_dir: str
    manifests: tuple[str, ...]
    servers: tuple[str, ...]
    simulated: bool
    pids: dict[str, int]


def introduction(gateway: RunningGateway, objectives: Iterable[Objective]) -> str:
    """Return what a user reads when all is running: how to try it, and where things are."""
    model = "simulated-model" if gateway.simulated else "YOUR-MODEL"
    lines = [f"The gateway is ready: {gateway.url}", ""]
    for title, objective in _examples(objectives):
        lines += [f"# {title}", _curl(gateway.url, model, objective), ""]
    lines += [
        f"metrics       {gateway.metrics_url}",
        f"health        {gateway.health_address} (gRPC)",
        f"ext_proc      {gateway.ext_proc_address} (gRPC)",
        f"Envoy admin   {gateway.envoy_admin_url}",
        f"servers       {' '.join(gateway.servers) or 'none yet'}",
        *(f"manifests     {path} (edit them: changes are taken at once)"
          for path in gateway.manifests),
        f"logs, state   {gateway.state_dir}",
        "",
        "Ctrl-C stops everything.",
    ]  # fmt: skip
    return "\n".join(lines)


def introduction_json(gateway: RunningGateway) -> str:
    """Return the same facts as one line of JSON, for scripts."""
    return json.dumps(msgspec.to_builtins(gateway))


def _examples(objectives: Iterable[Objective]) -> list[tuple[str, str | None]]:
    """Return a title and an objective's name for the highest, the default and the lowest."""
    ranked = sorted(objectives, key=lambda objective: -objective.priority)
    named = {objective.name: objective for objective in ranked[:1] + ranked[-1:]}
    examples: list[tuple[int, str, str | None]] = [(0, "no objective: priority 0", None)]
    for objective in named.values():
        title = f"objective {objective.name}: priority {objective.priority}"
        examples.append((objective.priority, title, objective.name))
    examples.sort(key=lambda example: -example[0])
    return [(title, name) for _, title, name in examples]


def _curl(url: str, model: str, objective: str | None) -> str:
    body = {"model": model, "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 32}
    words = ["curl", f"{url}/v1/chat/completions", "-H", "content-type: application/json"]
    if objective is not None:
        words += ["-H", f"{_OBJECTIVE_HEADER}: {objective}"]
    return shlex.join([*words, "-d", json.dumps(body)])
