import pytest

from epp.errors import UsageError
from epp.simulation.scaling import scaled
from epp.simulation.scenario import (
    Burst,
    Chat,
    ClosedLoop,
    Documents,
    EndpointGroup,
    OnOff,
    Poisson,
    SharedPrefix,
)
from tests.simulation.support import scenario, tenant

_POOL = (EndpointGroup(name="gpu", count=4),)


def test_with_the_endpoints_grow_the_load_and_what_is_shared() -> None:
    of = scenario(
        tenant(arrivals=Poisson(rate_per_s=2.0), content=SharedPrefix(prefixes=10)),
        tenant(arrivals=ClosedLoop(clients=3), content=Documents(documents=6)),
        tenant(arrivals=Burst(size=5), content=Chat(prefixes=3)),
        tenant(arrivals=OnOff(rate_per_s=4.0, off_rate_per_s=1.0, on_s=1, off_s=1)),
        pool=_POOL,
    )
    large = scaled(of, 8)
    assert large.pool[0].count == 8
    assert [each.arrivals for each in large.tenants] == [
        Poisson(rate_per_s=4.0),
        ClosedLoop(clients=6),
        Burst(size=10),
        OnOff(rate_per_s=8.0, off_rate_per_s=2.0, on_s=1, off_s=1),
    ]
    assert [each.content for each in large.tenants] == [
        SharedPrefix(prefixes=20),
        Documents(documents=12),
        Chat(prefixes=3),
        None,
    ]


def test_load_is_more_of_the_same() -> None:
    of = scenario(tenant(content=SharedPrefix(prefixes=10)), pool=_POOL)
    busy = scaled(of, load=1.5)
    assert busy.pool == of.pool
    assert busy.tenants[0].arrivals == Poisson(rate_per_s=1.5)
    assert busy.tenants[0].content == of.tenants[0].content
    assert scaled(of) == of


def test_which_of_several_groups_is_to_grow_is_not_known() -> None:
    of = scenario(tenant(), pool=(*_POOL, EndpointGroup(name="other")))
    assert scaled(of, load=2.0).tenants[0].arrivals == Poisson(rate_per_s=2.0)
    with pytest.raises(UsageError, match="test: 2 groups of endpoints; expected one"):
        scaled(of, 8)
