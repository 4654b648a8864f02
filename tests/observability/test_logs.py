"""The two forms of the log."""

import json
import logging
import re
from collections.abc import Iterator

import pytest

from epp.observability.logs import set_up_logging


@pytest.fixture(autouse=True)
def _leave_logging_alone() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def test_text(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging("info", "core")
    logging.getLogger("epp.x").info("did it n=%d", 3)
    logging.getLogger("epp.x").debug("unsaid")
    line = capsys.readouterr().err
    assert re.fullmatch(r"\d{4}-\d\d-\d\d [\d:,]+ INFO core epp\.x did it n=3\n", line)


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging("debug", form="json")
    logging.getLogger("epp.x").info("did\n%s", '"it"')
    try:
        raise ValueError("bad")
    except ValueError as error:
        logging.getLogger("epp.x").error("failed", exc_info=error)
    first, second = map(json.loads, capsys.readouterr().err.splitlines())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:]+\.\d{3}\+00:00", first.pop("ts"))
    assert first == {"level": "info", "logger": "epp.x", "msg": 'did\n"it"'}
    assert second["stacktrace"].endswith("ValueError: bad")


def test_json_of_one_of_several_processes(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging("debug", "worker-1", "json")
    logging.getLogger("epp.x").debug("hello")
    assert json.loads(capsys.readouterr().err)["process"] == "worker-1"
