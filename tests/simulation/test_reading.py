from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec
import pytest

from epp.discovery.documents import parse_documents
from epp.discovery.problems import Problems
from epp.errors import UsageError
from epp.simulation.reading import Reader


class Circle(msgspec.Struct, frozen=True, tag_field="shape", tag="circle"):
    radius: float


class Square(msgspec.Struct, frozen=True, tag_field="shape", tag="square"):
    side: float = 1.0


class FastOptions(msgspec.Struct, frozen=True):
    speed: int = 1


class SlowOptions(msgspec.Struct, frozen=True):
    pass


class Everything(msgspec.Struct, frozen=True):
    name: str
    count: Annotated[int, msgspec.Meta(ge=1, le=9)] = 1
    ratio: Annotated[float, msgspec.Meta(gt=0.0)] = 0.5
    flag: bool = False
    maybe: float | None = 1.0
    kind: Literal["a", "b"] = "a"
    shape: Annotated[int, msgspec.Meta(ge=1)] | Circle | Square = 1
    shapes: tuple[Circle | Square, ...] = ()
    speed: FastOptions | SlowOptions = FastOptions()
    by_number: Mapping[int, Square] = {}
    by_name: Mapping[str, float] = {}
    inner: Square | None = None


def _read(text: str) -> Everything:
    documents = list(parse_documents("x.yaml", text.encode(), Problems()))
    return Reader("x.yaml").read(documents[0].root, Everything)


def test_every_kind_of_field_is_read() -> None:
    read = _read("""
name: n
count: 3
ratio: 2
flag: true
maybe: null
kind: b
shape: {shape: circle, radius: 2}
shapes: [{shape: square}, {shape: square, side: 3}]
speed: {detector: slow}
by_number: {-3: {side: 4}}
by_name: {x: 1.5}
inner: {side: 2}
""")
    assert read == Everything(
        name="n", count=3, ratio=2.0, flag=True, maybe=None, kind="b", shape=Circle(2.0),
        shapes=(Square(), Square(3.0)), speed=SlowOptions(), by_number={-3: Square(4.0)},
        by_name={"x": 1.5}, inner=Square(2.0),
    )  # fmt: skip


def test_what_is_not_given_has_its_default() -> None:
    assert _read("name: n\nshape: 5") == Everything(name="n", shape=5)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("count: 1", "x.yaml:1: there is no name; expected it"),
        ("name: n\nnames: m", "x.yaml:2: names: there is no such field; expected one of name, "),
        ("name: n\nname: m", "x.yaml:2: name stands there twice; expected it once"),
        ("name: 5", "x.yaml:1: name: 5; expected text"),
        ("name: n\ncount: 0", "x.yaml:2: count: 0; expected at least 1"),
        ("name: n\ncount: 10", "x.yaml:2: count: 10; expected at most 9"),
        ("name: n\ncount: 1.5", "x.yaml:2: count: 1.5; expected a whole number"),
        ("name: n\ncount: true", "x.yaml:2: count: true; expected a whole number"),
        ("name: n\nratio: 0", "x.yaml:2: ratio: 0; expected more than 0.0"),
        ("name: n\nratio: 1e999", "x.yaml:2: ratio: inf; expected a number"),
        ("name: n\nratio: true", "x.yaml:2: ratio: true; expected a number"),
        ("name: n\nflag: 1", "x.yaml:2: flag: 1; expected true or false"),
        ("name: n\nkind: c", "x.yaml:2: kind: 'c'; expected one of a, b"),
        ("name: n\nkind: [a]", "x.yaml:2: kind: a list; expected one of a, b"),
        ("name: n\nshape: 0", "x.yaml:2: shape: 0; expected at least 1"),
        ("name: n\nshape: x", "x.yaml:2: shape: 'x'; expected a whole number"),
        ("name: n\nshape: {radius: 1}", "x.yaml:2: shape: there is no shape; expected shape: one"),
        ("name: n\nshape:\n  shape: oval", "x.yaml:3: shape.shape: 'oval'; expected one of circle"),
        ("name: n\nshape: {shape: circle}", "x.yaml:2: shape: there is no radius; expected it"),
        ("name: n\nshapes: 1", "x.yaml:2: shapes: 1; expected a list"),
        ("name: n\nshapes:\n  - shape: square\n    side: x", "x.yaml:4: shapes[0].side: 'x'; exp"),
        ("name: n\nspeed: {detector: quick}", "x.yaml:2: speed.detector: 'quick'; expected one of"),
        ("name: n\nspeed: {detector: slow, speed: 1}", "x.yaml:2: speed.speed: there is no such"),
        ("name: n\nby_number: {x: {}}", "x.yaml:2: by_number: 'x'; expected whole numbers as keys"),
        ("name: n\nby_number: 7", "x.yaml:2: by_number: 7; expected a mapping"),
        ("name: n\ninner: &x {side: 1}\nby_name: *x", "x.yaml:3: by_name: a YAML alias (*x); ex"),
        ("name: n\nmaybe:", ""),
        ("name: n\nratio:", "x.yaml:2: ratio: nothing; expected a number"),
        ("[]", "x.yaml:1: a list; expected a mapping"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_line_path_and_what_was_expected(
    text: str, problem: str
) -> None:
    if not problem:
        _read(text)
        return
    with pytest.raises(UsageError) as caught:
        _read(text)
    assert str(caught.value).startswith(problem)


def test_a_struct_without_fields_takes_nothing_more() -> None:
    with pytest.raises(UsageError, match="expected nothing more"):
        _read("name: n\nspeed: {detector: slow, x: 1}")
