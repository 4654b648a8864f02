"""Which profile is for a request."""

import random
from collections.abc import Mapping

import pytest

from epp.core.request import Request
from epp.core.scheduling import NamedFilter, Observer, ProfileScheduler, SchedulingProfile
from epp.core.scheduling.handlers import ProfileHandler, SingleProfileHandler

from .support import NOW, make, pool_of, request_of

_NAMES = ("prefill", "decode", "other")


class _NotNow(SingleProfileHandler):
    def choose(self, request: Request, profiles: Mapping[str, SchedulingProfile]) -> None:
        return None


def _profiles(*names: str) -> list[SchedulingProfile]:
    """Return profiles each of which picks the endpoint of the label with its name."""
    filters = [make("label-selector-filter", {"matchLabels": {"is": name}}) for name in names]
    return [
        SchedulingProfile(name, [NamedFilter("label", each)], (), make("max-score-picker"))
        for name, each in zip(names, filters, strict=True)
    ]


def _picked(scheduler: ProfileScheduler, headers: Mapping[str, str]) -> str | None:
    """Return which of the profiles has picked, and insist that it says so when asked."""
    pool = pool_of(len(_NAMES), labels=[{"is": name} for name in _NAMES])
    request, mask = request_of(headers=headers), pool.active
    slots = scheduler.pick(request, pool, mask, NOW, random.Random(0))
    told = scheduler.explain(request, pool, mask, NOW, random.Random(0))
    assert (told.picked if told else []) == list(slots)
    name = _NAMES[slots[0]] if slots else None
    assert (told.profile if told else None) == name
    return name


def _by_header(*names: str, **parameters: str) -> ProfileScheduler:
    handler = make("header-profile-handler", parameters)
    return ProfileScheduler(_profiles(*names), handler=handler)


@pytest.mark.parametrize("handler", [None, make("single-profile-handler")])
def test_a_single_profile_runs(handler: ProfileHandler | None) -> None:
    scheduler = ProfileScheduler(_profiles("other")[0], handler=handler)
    assert _picked(scheduler, {"epp-profile": "decode"}) == "other"


@pytest.mark.parametrize("count", [0, 2])
def test_a_single_profile_is_neither_none_nor_two(count: int) -> None:
    with pytest.raises(ValueError, match=f"found {count} scheduling profiles; expected one"):
        ProfileScheduler(_profiles(*_NAMES[:count]))


@pytest.mark.parametrize(
    ("value", "picked"),
    [
        ("prefill", "prefill"),
        (" other ", "other"),
        ("", "decode"),
        (None, "decode"),
        ("unheard-of", "decode"),
    ],
)
def test_a_header_names_the_profile_or_it_is_the_default(value: str | None, picked: str) -> None:
    headers = {} if value is None else {"epp-profile": value}
    assert _picked(_by_header(*_NAMES), headers) == picked


def test_header_and_default_can_be_chosen() -> None:
    scheduler = _by_header(*_NAMES, headerName=" X-Profile ", defaultProfile="other")
    assert _picked(scheduler, {}) == "other"
    assert _picked(scheduler, {"x-profile": "prefill", "epp-profile": "decode"}) == "prefill"


def test_of_one_profile_the_header_says_nothing() -> None:
    assert _picked(_by_header("other"), {"epp-profile": "decode"}) == "other"


def test_the_default_must_be_there() -> None:
    with pytest.raises(ValueError, match=r'found defaultProfile "decode"; .*: prefill, other'):
        _by_header("prefill", "other")


def test_a_name_that_no_header_has_is_refused() -> None:
    with pytest.raises(ValueError, match="headerName 'a b'; expected the name of a header"):
        _by_header(*_NAMES, headerName="a b")


def test_the_handler_sees_its_header() -> None:
    other = Observer()
    handler = make("header-profile-handler", {"headerName": "X-Profile"})
    scheduler = ProfileScheduler(_profiles(*_NAMES), [other, handler], handler)
    assert scheduler.observers == (handler, other)
    assert handler.wanted_headers == ("x-profile",)


def test_a_handler_may_have_no_profile_for_a_request() -> None:
    assert _picked(ProfileScheduler(_profiles("other")[0], handler=_NotNow()), {}) is None
