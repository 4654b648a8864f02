"""What a simulation can be told: who asks for what, of which engines, under which policy."""

from collections.abc import Mapping
from typing import Annotated, Literal, TypeAlias

import msgspec

from epp.core.flow import FlowOptions
from epp.core.flow.saturation import ConcurrencyOptions, SaturationOptions
from epp.modelserver.engine import EngineOptions

__all__ = [
    "Adapters",
    "Arrivals",
    "Burst",
    "Chat",
    "ClosedLoop",
    "Constant",
    "Content",
    "Documents",
    "EndpointGroup",
    "Fixed",
    "Length",
    "Lognormal",
    "OnOff",
    "Poisson",
    "PolicyName",
    "RandomText",
    "Retries",
    "RoutingName",
    "Scenario",
    "Scrapes",
    "SharedPrefix",
    "Tenant",
    "Uniform",
    "Window",
]

PolicyName: TypeAlias = Literal[
    "configured", "weighted-fair", "round-robin", "global-strict", "oracle"
]
"""Which fairness runs: that of the scenario's ``flow``, or one in all of its bands. ``oracle`` is
weighted-fair with a cost model that knows the lengths."""

RoutingName: TypeAlias = Literal[
    "random",
    "round-robin",
    "least-in-flight",
    "reference-default",
    "default",
    "oracle",
    "oracle-hits",
]
"""Which scheduler picks the endpoints: see :mod:`epp.simulation.routing`."""


_Count: TypeAlias = Annotated[int, msgspec.Meta(ge=1)]
_Positive: TypeAlias = Annotated[float, msgspec.Meta(gt=0.0)]
_NotNegative: TypeAlias = Annotated[float, msgspec.Meta(ge=0.0)]


class _Process(msgspec.Struct, frozen=True, kw_only=True, tag_field="process"):
    pass


class Poisson(_Process, frozen=True, kw_only=True, tag="poisson"):
    """Independent arrivals, ``rate_per_s`` of them on average.

    Within the first ``ramp_s`` seconds their rate grows from 0 to that.
    """

    rate_per_s: _Positive
    ramp_s: _NotNegative = 0.0


class Constant(_Process, frozen=True, kw_only=True, tag="constant"):
    """One arrival each ``1 / rate_per_s`` seconds."""

    rate_per_s: _Positive


class Burst(_Process, frozen=True, kw_only=True, tag="burst"):
    """``size`` arrivals at once, again every ``period_s``; once where that is None."""

    size: _Count
    period_s: _Positive | None = None


class OnOff(_Process, frozen=True, kw_only=True, tag="on-off"):
    """Poisson arrivals with two rates: ``on_s`` seconds of one, then ``off_s`` of the other."""

    rate_per_s: _Positive
    on_s: _Positive
    off_s: _Positive
    off_rate_per_s: _NotNegative = 0.0


class ClosedLoop(_Process, frozen=True, kw_only=True, tag="closed-loop"):
    """``clients`` that ask, wait for the answer, think for ``think_s`` seconds, and ask again.

    A client whose request was refused for good waits as long as it was advised to.
    """

    clients: _Count
    think_s: _NotNegative = 0.0


Arrivals: TypeAlias = Poisson | Constant | Burst | OnOff | ClosedLoop


class _Distribution(msgspec.Struct, frozen=True, kw_only=True, tag_field="distribution"):
    pass


class Fixed(_Distribution, frozen=True, kw_only=True, tag="fixed"):
    """Always the same number of ``tokens``."""

    tokens: _Count


class Uniform(_Distribution, frozen=True, kw_only=True, tag="uniform"):
    """Every number of tokens from ``low`` to ``high`` equally often."""

    low: _Count
    high: _Count


class Lognormal(_Distribution, frozen=True, kw_only=True, tag="lognormal"):
    """A number of tokens whose logarithm is normal, with standard deviation ``sigma``.

    ``mean`` is that of the number itself; numbers above ``most`` are cut to it.
    """

    mean: _Positive
    sigma: _NotNegative = 0.5
    most: _Count | None = None


Length: TypeAlias = _Count | Fixed | Uniform | Lognormal
"""Tokens of a prompt or an output; a plain number is a fixed length."""


class _Content(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind"):
    pass


class RandomText(_Content, frozen=True, kw_only=True, tag="random"):
    """Prompts that have nothing in common."""


class SharedPrefix(_Content, frozen=True, kw_only=True, tag="shared-prefix"):
    """Prompts that begin with one of ``prefixes`` texts of ``prefix_tokens`` tokens.

    The n-th is used in proportion to ``1 / n ** zipf``.
    """

    prefixes: _Count
    prefix_tokens: Length = 2000
    zipf: _NotNegative = 1.0


class Chat(_Content, frozen=True, kw_only=True, tag="chat"):
    """Conversations of ``turns`` requests, each of which repeats all that was said before.

    What arrives are conversations. They begin with one of ``prefixes`` texts, as
    :class:`SharedPrefix` has them, and go on ``think_s`` seconds after each answer, on average.
    """

    turns: _Count = 8
    think_s: _NotNegative = 15.0
    prefixes: _Count = 1
    prefix_tokens: Length = 500
    zipf: _NotNegative = 1.0


class Documents(_Content, frozen=True, kw_only=True, tag="document"):
    """Prompts that begin with one of ``documents`` texts of ``document_tokens`` tokens, each of
    which gives way to a new one when it has been used ``questions`` times."""

    documents: _Count
    document_tokens: Length = 20_000
    questions: _Count = 4


Content: TypeAlias = RandomText | SharedPrefix | Chat | Documents


class Adapters(msgspec.Struct, frozen=True, kw_only=True):
    """``count`` LoRA adapters, of which a conversation needs one: the n-th in proportion to
    ``1 / n ** zipf``."""

    count: _Count
    zipf: _NotNegative = 1.0


class Retries(msgspec.Struct, frozen=True, kw_only=True):
    """What a client does that was turned away: try up to ``max_tries`` times, each time after the
    ``Retry-After`` that it was given, or after ``delay_s`` where it does not obey that."""

    max_tries: _Count = 1
    obey_retry_after: bool = True
    delay_s: _NotNegative = 1.0


class Tenant(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant: its requests are one flow, with the name as fairness id.

    ``prompt_tokens`` are those that no prompt before had, besides what ``content`` says of what
    comes before them; without it, and with it where that is random, they are all. Engines cache
    prefixes of tenants that have a ``content``. A tenant with ``adapters`` asks for these instead
    of its ``model``.

    ``max_tokens`` is what its requests allow and cuts their outputs. It begins at ``start_s`` and
    sends nothing from ``stop_s`` on; None means the end of the simulation. ``wait_limit_s`` and
    ``slo_ttft_s`` are the claims of its requests.
    """

    name: str
    arrivals: Arrivals
    prompt_tokens: Length = 500
    output_tokens: Length = 200
    max_tokens: _Count | None = None
    priority: int = 0
    weight: _Positive = 1.0
    model: str = ""
    content: Content | None = None
    adapters: Adapters | None = None
    start_s: _NotNegative = 0.0
    stop_s: _NotNegative | None = None
    wait_limit_s: _Positive | None = None
    slo_ttft_s: _Positive | None = None
    retries: Retries = Retries()


class EndpointGroup(msgspec.Struct, frozen=True, kw_only=True):
    """``count`` engines that are alike.

    They are in the pool from ``join_s`` to ``leave_s``; None stays. Those that leave finish what
    they run. All times of an engine are ``slow_factor`` times as long as its latency model says.
    """

    name: str
    count: _Count = 1
    engine: EngineOptions = EngineOptions()
    slow_factor: _Positive = 1.0
    join_s: _NotNegative = 0.0
    leave_s: _NotNegative | None = None


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """A time during which ``groups``, or all endpoints where none are named, tell nothing."""

    from_s: _NotNegative
    to_s: _NotNegative
    groups: tuple[str, ...] = ()


class Scrapes(msgspec.Struct, frozen=True, kw_only=True):
    """How the load of the engines becomes known: every ``period_s``, ``delay_s`` late."""

    period_s: _NotNegative = 1.0
    delay_s: _NotNegative = 0.0
    outages: tuple[Window, ...] = ()


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """A workload, a pool, and how the one is let onto the other.

    Requests arrive for ``duration_s`` seconds; what is in the system then has ``drain_s`` more to
    end. Figures leave out what arrived, and was served, before ``measure_from_s``. The pool is
    sampled every ``sample_s``. Where the bodies of responses are seen, the flow control hears how
    far they are every ``progress_s``; 0 means that they are not seen. ``policies``, ``routing`` and
    ``seeds`` are what runs if the user names nothing: each policy with each routing.
    """

    name: str = ""
    description: str = ""
    duration_s: _Positive = 600.0
    measure_from_s: _NotNegative = 0.0
    drain_s: _NotNegative = 600.0
    sample_s: _Positive = 1.0
    progress_s: _NotNegative = 0.0
    seeds: _Count = 1
    policies: tuple[PolicyName, ...] = ("configured",)
    routing: tuple[RoutingName, ...] = ("default",)
    tenants: tuple[Tenant, ...] = ()
    pool: tuple[EndpointGroup, ...] = (EndpointGroup(name="engine", count=4),)
    flow: FlowOptions = FlowOptions()
    saturation: SaturationOptions = ConcurrencyOptions(max_requests=32)
    scrapes: Scrapes = Scrapes()

    @property
    def is_about_routing(self) -> bool:
        """Whether it compares ways of routing, or is of requests for which these differ."""
        return len(self.routing) > 1 or any(tenant.content for tenant in self.tenants)

    @property
    def weights(self) -> Mapping[str, float]:
        """The weights of the flows: those of ``flow`` and those of the tenants, which are 1
        otherwise."""
        own = {tenant.name: tenant.weight for tenant in self.tenants if tenant.weight != 1.0}
        return {**self.flow.weights, **own}
