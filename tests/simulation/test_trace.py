from pathlib import Path

import pytest

from epp.errors import UsageError
from epp.simulation.trace import read_trace

_HEADER = "arrival_s,prompt_tokens,output_tokens,tenant,priority\n"


def _written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "day.csv"
    path.write_text(text)
    return path


def test_rows_are_in_order_and_begin_at_zero(tmp_path: Path) -> None:
    trace = read_trace(_written(tmp_path, _HEADER + "12.5,10,20,b,-1\n\n10,1,2,a,3\n"))
    assert trace.name == "day"
    assert trace.rows == [(0.0, 1, 2, "a", 3), (2.5, 10, 20, "b", -1)]
    assert trace.duration_s == 2.5


def test_tenant_and_priority_may_be_missing_and_columns_in_any_order(tmp_path: Path) -> None:
    text = "model, output_tokens, arrival_s, prompt_tokens\nx, 2, 0, 1\n"
    assert read_trace(_written(tmp_path, text)).rows == [(0.0, 1, 2, "default", 0)]
    assert read_trace(_written(tmp_path, _HEADER + "0,1,2,,\n")).rows[0].tenant == "default"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", ":1: no column arrival_s, prompt_tokens, output_tokens in the header; expected"),
        ("arrival_s,tenant\n", ":1: no column prompt_tokens, output_tokens"),
        (_HEADER, ": no requests; expected a row for each after the header"),
        (_HEADER + "0,1,2\n", ":2: 3 values; expected 5 as the header"),
        (_HEADER + "0,1,2,a,0\nsoon,1,2,a,0\n", ":3: arrival_s is 'soon'; expected seconds"),
        (_HEADER + "nan,1,2,a,0\n", ":2: arrival_s is 'nan'; expected seconds"),
        (_HEADER + "0,0,2,a,0\n", ":2: prompt_tokens is '0'; expected a whole number of at"),
        (_HEADER + "0,1,2.5,a,0\n", ":2: output_tokens is '2.5'; expected a whole number"),
        (_HEADER + "0,1,2,a,high\n", ":2: priority is 'high'; expected a whole number"),
        (_HEADER + "0,60,50,a,0\n", ":2: 60 + 50 tokens; expected at most 100, which is what"),
    ],
)
def test_what_cannot_be_used_is_told_with_its_line(tmp_path: Path, text: str, problem: str) -> None:
    path = _written(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        read_trace(path, 100)
    assert str(caught.value).startswith(f"{path}{problem}")


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.csv: No such file or directory; expected a CSV"):
        read_trace(tmp_path / "none.csv")
    path = tmp_path / "binary.csv"
    path.write_bytes(_HEADER.encode() + b"\xff")
    with pytest.raises(UsageError, match=r"byte 54 is not UTF-8"):
        read_trace(path)
    with pytest.raises(UsageError, match=r"not valid CSV"):
        read_trace(_written(tmp_path, _HEADER + f'0,1,2,"{"a" * 140_000}",0\n'))
