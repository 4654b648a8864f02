"""How many tokens a request has: numbers drawn from a distribution."""

import math
import random
from collections.abc import Callable

from epp.simulation.scenario import Fixed, Length, Lognormal, Uniform

__all__ = ["sampler"]


def sampler(length: Length, rng: random.Random) -> Callable[[], int]:
    """Return a function that draws a length, at least 1 token."""
    if isinstance(length, Uniform):
        low, span = length.low, length.high - length.low + 1
        return lambda: low + int(rng.random() * span)
    if isinstance(length, Lognormal):
        return _lognormal(length, rng)
    tokens = length.tokens if isinstance(length, Fixed) else length
    return lambda: tokens


def _lognormal(length: Lognormal, rng: random.Random) -> Callable[[], int]:
    # The mean of exp(N(mu, sigma²)) is exp(mu + sigma²/2).
    mu = math.log(length.mean) - length.sigma**2 / 2.0
    sigma = length.sigma
    most = math.inf if length.most is None else length.most
    return lambda: max(1, round(min(most, rng.lognormvariate(mu, sigma))))
