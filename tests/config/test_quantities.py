import math
from contextlib import suppress
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.config.quantities import MAX_QUANTITY, Duration, Quantity

FACTORS = {
    "": Fraction(1),
    **{unit: Fraction(1000) ** power for power, unit in enumerate(["n", "u", "m"], -3)},
    **{unit: Fraction(1000) ** power for power, unit in enumerate("kMGTPE", 1)},
    **{unit: Fraction(1024) ** power for power, unit in enumerate(["Ki", "Mi", "Gi", "Ti"], 1)},
}
NANOSECONDS = {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9}
NANOSECONDS |= {"m": 60 * 10**9, "h": 3600 * 10**9}

whole = st.integers(0, 10**12).map(str)
digits = st.text("0123456789", min_size=1, max_size=9)
decimals = st.one_of(
    whole,
    st.builds("{}.{}".format, whole, digits),
    st.builds(".{}".format, digits),
    st.builds("{}.".format, whole),
)


def value(number: str) -> Fraction:
    return Fraction(f"0{number}0" if "." in number else number)


# ---- quantities ----


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("100", 100),
        ("+5", 5),
        ("0", 0),
        ("1k", 1000),
        ("1Ki", 1024),
        ("1Gi", 1 << 30),
        ("512Mi", 512 << 20),
        ("1.5Gi", 3 << 29),
        ("1G", 10**9),
        ("1e3", 1000),
        ("1E3", 1000),
        ("1e+3", 1000),
        ("1E", 10**18),
        ("1Ei", 1 << 60),
        ("2500e-3", 3),
        ("100m", 1),
        ("1001m", 2),
        ("1n", 1),
        ("0.000", 0),
        ("5.", 5),
        (".5", 1),
        ("9223372036854775808", MAX_QUANTITY),
        ("8Ei", MAX_QUANTITY),
        ("9" * 100, MAX_QUANTITY),
        ("1e400", MAX_QUANTITY),
        ("1e-400", 1),
        ("0e400", 0),
        (5, 5),
        (1e3, 1000),
        (1e22, MAX_QUANTITY),
        (0.25, 1),
    ],
)
def test_quantities(text: object, amount: int) -> None:
    assert Quantity.parse(text) == amount


NO_QUANTITIES = ["", " 1", "1 ", "-1", "-0", "1ki", "1K", "1kk", "1e", "e3", ".", "1.5.2", "1_000"]
NO_QUANTITIES += ["1e3k", "1e1.5", "0x10", "\u0661", "1Gib", "one", "+", "--1", "1" * 101]


@pytest.mark.parametrize("text", [*NO_QUANTITIES, -1, -0.5, True, math.inf, math.nan, None, []])
def test_what_is_no_quantity(text: object) -> None:
    with pytest.raises(ValueError, match="not a quantity"):
        Quantity.parse(text)


@given(decimals, st.sampled_from(sorted(FACTORS)))
def test_a_quantity_is_its_number_times_its_unit_rounded_up(number: str, unit: str) -> None:
    expected = min(math.ceil(value(number) * FACTORS[unit]), MAX_QUANTITY)
    assert Quantity.parse(number + unit) == expected


@given(decimals, st.sampled_from("eE"), st.integers(-300, 300))
def test_a_quantity_with_an_exponent(number: str, letter: str, exponent: int) -> None:
    expected = min(math.ceil(value(number) * Fraction(10) ** exponent), MAX_QUANTITY)
    assert Quantity.parse(f"{number}{letter}{exponent}") == expected


@given(st.text("0123456789.+-eEkKmMGinu "))
def test_any_text_is_a_quantity_or_refused(text: str) -> None:
    with suppress(ValueError):
        assert 0 <= Quantity.parse(text) <= MAX_QUANTITY


# ---- durations ----


@pytest.mark.parametrize(
    ("text", "duration_s"),
    [
        ("0", 0.0),
        ("+0", 0.0),
        ("0s", 0.0),
        ("1h30m", 5400.0),
        ("500ms", 0.5),
        ("1.5s", 1.5),
        (".5s", 0.5),
        ("1.s", 1.0),
        ("1m1m", 120.0),
        ("30s1h", 3630.0),
        ("1us", 1e-6),
        ("1µs", 1e-6),
        ("1μs", 1e-6),
        ("1ns", 1e-9),
        ("+2h", 7200.0),
        ("9223372036854775807ns", 9223372036.854775807),
    ],
)
def test_durations(text: str, duration_s: float) -> None:
    assert Duration.parse(text) == duration_s


NO_DURATIONS = [
    "",
    " 1s",
    "1s ",
    "-1s",
    "-0",
    "1",
    "60",
    "1.5",
    "s",
    ".s",
    "1S",
    "1 s",
    "1d",
    "1e3s",
]
NO_DURATIONS += ["1h30", "01", "1s-1s", "+", "9223372036854775808ns", "2562048h", "1" * 100 + "s"]


@pytest.mark.parametrize("text", [*NO_DURATIONS, 0, 30, 1.5, True, None, []])
def test_what_is_no_duration(text: object) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        Duration.parse(text)


parts = st.tuples(
    st.builds("{}.{}".format, st.integers(0, 999), digits), st.sampled_from(["s", "m"])
)
parts |= st.tuples(st.integers(0, 10**6).map(str), st.sampled_from(sorted(NANOSECONDS)))


@given(st.lists(parts, min_size=1, max_size=5))
def test_a_duration_is_the_sum_of_its_parts(parts: list[tuple[str, str]]) -> None:
    text = "".join(map("".join, parts))
    nanoseconds = sum(value(number) * NANOSECONDS[unit] for number, unit in parts)
    if nanoseconds > MAX_QUANTITY:
        with pytest.raises(ValueError, match="not a duration"):
            Duration.parse(text)
    else:
        assert Duration.parse(text) == float(nanoseconds / 10**9)


@given(st.text("0123456789.+-hmsnuµ "))
def test_any_text_is_a_duration_or_refused(text: str) -> None:
    with suppress(ValueError):
        assert 0 <= Duration.parse(text) < math.inf
