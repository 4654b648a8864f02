"""Settings of all tests: hypothesis runs the same examples each time, so that no run is a lottery.

A failing example is printed as it was found, which takes no time;
``pytest --hypothesis-profile=shrink`` makes it small, ``--hypothesis-profile=explore`` looks for
new ones.
"""

from hypothesis import HealthCheck, Phase, settings

settings.register_profile(
    "fixed",
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "shrink",
    settings.get_profile("fixed"),
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
)
settings.register_profile("explore", settings.get_profile("shrink"), derandomize=False)
settings.load_profile("fixed")
