"""How long a proxy is asked to wait."""

import pytest

from epp.core.exchange_limits import proxy_timeout_s


@pytest.mark.parametrize(
    ("deadline_s", "timeout_s"),
    [(None, 3600.0), (1060.0, 65.0), (1000.0, 5.0), (4594.0, 3599.0), (9999.0, 3600.0)],
)
def test_a_little_longer_than_the_wait_can_be_and_an_hour_at_most(
    deadline_s: float | None, timeout_s: float
) -> None:
    assert proxy_timeout_s(deadline_s, 1000.0) == timeout_s
