"""``session-id-producer``: the id that a client gives its session, from a header or a cookie."""

from typing import Annotated, Protocol

import msgspec

from epp.core.request import Request
from epp.core.scheduling.candidates import Candidates
from epp.core.scheduling.definition import Parameters, PluginContext, PluginDefinition
from epp.core.scheduling.header_names import header_name
from epp.core.scheduling.plugin import Observer

__all__ = [
    "SESSION_ID_PRODUCER",
    "FirstOf",
    "FromCookie",
    "FromHeader",
    "SessionIdProducer",
    "SessionIdSource",
]


class SessionIdSource(Protocol):
    """Where the id of a session comes from."""

    @property
    def wanted_headers(self) -> tuple[str, ...]:
        """The request headers that it reads, in lower case."""
        ...

    def session_id(self, request: Request) -> str:
        """Return the id; empty where there is none."""
        ...


class FromHeader:
    """The value of a header, which is named in lower case."""

    def __init__(self, header: str) -> None:
        self._header = header
        self.wanted_headers = (header,)

    def session_id(self, request: Request) -> str:
        """Return it without white space around it."""
        return request.headers.get(self._header, "").strip()


class FromCookie:
    """The value of a cookie."""

    wanted_headers = ("cookie",)

    def __init__(self, cookie: str) -> None:
        self._cookie = cookie

    def session_id(self, request: Request) -> str:
        """Return the first of this name, without quotes."""
        for each in request.headers.get("cookie", "").split(";"):
            name, _, value = each.partition("=")
            if name.strip() == self._cookie:
                return value.strip().strip('"')
        return ""


class FirstOf:
    """The first source that has an id."""

    def __init__(self, sources: tuple[SessionIdSource, ...]) -> None:
        self._sources = sources
        self.wanted_headers = tuple(name for each in sources for name in each.wanted_headers)

    def session_id(self, request: Request) -> str:
        """Return it."""
        for each in self._sources:
            found = each.session_id(request)
            if found:
                return found
        return ""


class SessionIdProducer(Observer):
    """Tells other plugins the id of a request's session."""

    def __init__(self, source: SessionIdSource) -> None:
        self._source = source
        self.wanted_headers = source.wanted_headers

    def session_id(self, request: Request) -> str:
        """Return the id; empty where there is none."""
        return self._source.session_id(request)

    def produce(self, candidates: Candidates) -> str:
        """Return the same, for one pick."""
        return self._source.session_id(candidates.request)


_Text = Annotated[str, msgspec.Meta(description="text")]


class SessionIdParameters(Parameters, frozen=True, kw_only=True):
    """Of ``session-id-producer``."""

    header_name: _Text = ""
    cookie_name: _Text = ""


def _make(parameters: SessionIdParameters, context: PluginContext) -> SessionIdProducer:
    header = header_name(parameters.header_name, "headerName", default="")
    cookie = parameters.cookie_name.strip()
    if bool(header) == bool(cookie):
        raise ValueError(
            f"found {'both' if header else 'neither'} of headerName and cookieName; expected one"
        )
    return SessionIdProducer(FromHeader(header) if header else FromCookie(cookie))


SESSION_ID_PRODUCER = PluginDefinition(
    type="session-id-producer",
    summary="Reads the id of a session from a request header or a cookie.",
    make=_make,
    parameters=SessionIdParameters,
    explains={
        "headerName": "The header with the id.",
        "cookieName": "The cookie with the id, within the first KiB of the cookies.",
    },
)
