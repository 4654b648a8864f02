"""``epp explain-pick``: where would this request go, and why."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from epp.errors import UsageError

if TYPE_CHECKING:
    from epp.observability.explain import CandidateAnswer, PickAnswer

__all__ = ["add_parser"]

_TIMEOUT_S: Final = 10.0


def add_parser(subcommands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command's parser."""
    parser = subcommands.add_parser(
        "explain-pick",
        help="ask a running endpoint picker where a request would go, and why",
        description="Ask a running endpoint picker where a request would go if it came now: the"
        " candidates, each scorer's score, and why the winner won. Nothing is dispatched.",
    )
    parser.add_argument(
        "body", nargs="?", type=Path, metavar="FILE",
        help="the request's body, as its client would send it; - for the standard input",
    )  # fmt: skip
    parser.add_argument(
        "--server", default="http://127.0.0.1:9090", metavar="URL",
        help="where its metrics are (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "-H", "--header", action="append", default=[], metavar="'NAME: VALUE'",
        help="a header of the request; may be given more than once",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print the answer as JSON")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    import msgspec

    from epp.observability.explain import PickAnswer

    data = _ask(args.server, _headers(args.header), _body(args.body))
    if args.json:
        print(msgspec.json.format(data).decode())
        return 0
    try:
        answer = msgspec.json.decode(data, type=PickAnswer)
    except msgspec.MsgspecError as error:
        raise UsageError(f"{args.server}: found no answer of an endpoint picker: {error}") from None
    print("\n".join(_render(answer)))
    return 0


def _body(path: Path | None) -> bytes:
    if path is None:
        return b'{"messages": [{"role": "user", "content": "Hello"}]}'
    if str(path) == "-":
        return sys.stdin.buffer.read()
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from error


def _headers(texts: list[str]) -> dict[str, str]:
    headers = {}
    for text in texts:
        name, colon, value = text.partition(":")
        if not colon or not name.strip():
            raise UsageError(f"--header: found {text!r}; expected 'NAME: VALUE'")
        headers[name.strip()] = value.strip()
    return headers


def _ask(server: str, headers: dict[str, str], body: bytes) -> bytes:
    from urllib.error import HTTPError, URLError
    from urllib.request import Request, urlopen

    url = f"{server.rstrip('/')}/debug/explain-pick"
    try:
        request = Request(url, data=body, headers=headers, method="POST")
        with urlopen(request, timeout=_TIMEOUT_S) as response:
            answer: bytes = response.read()
            return answer
    except HTTPError as error:
        text = error.read().decode("utf-8", "replace").strip() or error.reason
        raise UsageError(f"{url}: answered {error.code}: {text}") from None
    except (URLError, OSError, ValueError) as error:
        reason = error.reason if isinstance(error, URLError) else error
        raise UsageError(
            f"cannot ask {url}: {reason}; expected a running endpoint picker"
        ) from None


def _render(answer: "PickAnswer") -> list[str]:
    asked = f"model {answer.model or '(none)'}, about {answer.prompt_tokens} prompt tokens"
    lines = [
        f"request: {asked}, priority {answer.priority}, flow {answer.fairness_id}",
        f"pool: {answer.pool or '(none)'}",
        f"profile: {answer.profile or '(none)'}, {answer.picker or 'least loaded'}",
        answer.verdict,
        "",
    ]
    scorers = next((each.scores for each in answer.candidates if each.scores), [])
    heads = ["endpoint", "address", "in flight", "waiting", "running", "KV"]
    heads += [f"{each.scorer} x {each.weight:g}" for each in scorers]
    rows = [[*heads, "total", ""]]
    rows += [_row(each, len(scorers)) for each in answer.candidates]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        lines.append("  ".join(cells).rstrip())
    lines += _parts(answer)
    return lines


def _row(each: "CandidateAnswer", scorers: int) -> list[str]:
    scores = [f"{score.score:.3f}" for score in each.scores] or ["-"] * scorers
    fate = f"{each.fate} by {each.by}" if each.by else each.fate
    return [
        each.endpoint,
        each.destination,
        f"{each.in_flight}/{each.limit}",
        _number(each.waiting, "{:g}"),
        _number(each.running, "{:g}"),
        _number(each.kv_ratio, "{:.0%}"),
        *scores,
        _number(each.total, "{:.3f}"),
        fate,
    ]


def _parts(answer: "PickAnswer") -> list[str]:
    """Return what the scores are made of, for scorers that tell."""
    lines = []
    for each in answer.candidates:
        for score in each.scores:
            if score.parts:
                parts = ", ".join(f"{name} {value:.0f}" for name, value in score.parts.items())
                lines.append(f"  {each.endpoint}: {score.scorer} of {parts}")
    return ["", "made of:", *lines] if lines else []


def _number(value: float | None, pattern: str) -> str:
    return "-" if value is None else pattern.format(value)
