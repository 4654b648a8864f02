"""Counts that others wrote: taken where they are such, else nothing."""

import msgspec
import pytest

from epp.core.parsing.numbers import count_in


@pytest.mark.parametrize(
    ("value", "count"),
    [
        (b"0", 0),
        (b"1", 1),
        (b"999999999", 999_999_999),
        (b"1000000000", None),
        (b"9" * 5_000, None),
        (b"-1", None),
        (b"-0", None),
        (b"1.0", None),
        (b"1e3", None),
        (b"1e99", None),
        (b'"oops"', None),
        (b'"7"', None),
        (b"null", None),
        (b"true", None),
        (b"[1]", None),
        (b'{"a":1}', None),
        (b"", None),
    ],
)
def test_a_count_or_nothing(value: bytes, count: int | None) -> None:
    assert count_in(msgspec.Raw(value)) == count
