"""Which scheduling profile is for a request: ``single-profile-handler``,
``header-profile-handler``."""

from collections.abc import Mapping
from typing import Annotated, Protocol, runtime_checkable

import msgspec

from epp.core.request import Request
from epp.core.scheduling.definition import Parameters, PluginContext, PluginDefinition
from epp.core.scheduling.header_names import header_name
from epp.core.scheduling.plugin import Observer
from epp.core.scheduling.profile import SchedulingProfile

__all__ = [
    "HEADER_PROFILE_HANDLER",
    "SINGLE_PROFILE_HANDLER",
    "HeaderProfileHandler",
    "ProfileHandler",
    "SingleProfileHandler",
]


@runtime_checkable
class ProfileHandler(Protocol):
    """Says which profile runs. It must say the same whenever it is asked for the same request."""

    def check(self, profiles: Mapping[str, SchedulingProfile]) -> None:
        """Raise ValueError, with what was found and expected, where it cannot work with these
        profiles, which are by name."""
        ...

    def choose(
        self, request: Request, profiles: Mapping[str, SchedulingProfile]
    ) -> SchedulingProfile | None:
        """Return one of the profiles that it was checked with; None where the request is not to go
        now."""
        ...


class SingleProfileHandler:
    """Chooses the one profile that there is."""

    def check(self, profiles: Mapping[str, SchedulingProfile]) -> None:
        """Raise ValueError unless there is exactly one."""
        if len(profiles) != 1:
            raise ValueError(
                f"found {len(profiles)} scheduling profiles; expected one for"
                " single-profile-handler"
            )

    def choose(
        self, request: Request, profiles: Mapping[str, SchedulingProfile]
    ) -> SchedulingProfile | None:
        """Return it."""
        return next(iter(profiles.values()))


class HeaderProfileHandler(Observer):
    """Chooses the profile that a request header names.

    Where there is but one profile, it is that one. A request without the header, or with a name
    that no profile has, gets the default profile: the llm-d router's ``header-profile-handler``
    fails a request whose profile it does not know, so there a client's slip becomes an error of the
    server.
    """

    def __init__(self, header: str = "epp-profile", default_profile: str = "decode") -> None:
        self._header = header
        self._default_profile = default_profile
        self.wanted_headers = (self._header,)

    def check(self, profiles: Mapping[str, SchedulingProfile]) -> None:
        """Raise ValueError where there are several and none is the default."""
        if len(profiles) != 1 and self._default_profile not in profiles:
            raise ValueError(
                f'found defaultProfile "{self._default_profile}"; expected one of the scheduling'
                f" profiles: {', '.join(profiles)}"
            )

    def choose(
        self, request: Request, profiles: Mapping[str, SchedulingProfile]
    ) -> SchedulingProfile | None:
        """Return the profile that the request names, or the default one."""
        if len(profiles) == 1:
            return next(iter(profiles.values()))
        named = request.headers.get(self._header, "").strip()
        return profiles.get(named) or profiles[self._default_profile]


class HeaderProfileParameters(Parameters, frozen=True, kw_only=True):
    """Of ``header-profile-handler``."""

    header_name: Annotated[str, msgspec.Meta(description="the name of a header")] = "epp-profile"
    default_profile: Annotated[str, msgspec.Meta(description="the name of a profile")] = "decode"


def _make_header_handler(
    parameters: HeaderProfileParameters, context: PluginContext
) -> HeaderProfileHandler:
    return HeaderProfileHandler(
        header_name(parameters.header_name, "headerName", default="epp-profile"),
        parameters.default_profile or "decode",
    )


SINGLE_PROFILE_HANDLER = PluginDefinition(
    type="single-profile-handler",
    summary="Runs the one scheduling profile that there is.",
    make=lambda parameters, context: SingleProfileHandler(),
)

HEADER_PROFILE_HANDLER = PluginDefinition(
    type="header-profile-handler",
    summary="Runs the scheduling profile that a request header names, or a default one.",
    make=_make_header_handler,
    parameters=HeaderProfileParameters,
    explains={
        "headerName": "The request header with the name of a profile.",
        "defaultProfile": "The profile of requests that name none, or one that there is not.",
    },
)
