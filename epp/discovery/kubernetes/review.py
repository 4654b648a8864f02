"""Who may read the metrics: asked of the API server, by TokenReview and SubjectAccessReview."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from hashlib import sha256
from math import inf
from typing import Any, Final, NamedTuple, Protocol, TypeVar

import msgspec

from epp.discovery.kubernetes.api.errors import ApiError, ApiUnreachable, ClusterError

__all__ = ["Creates", "Denial", "MetricsReview"]

logger = logging.getLogger(__name__)

_TOKEN_REVIEWS: Final = "/apis/authentication.k8s.io/v1/tokenreviews"
_ACCESS_REVIEWS: Final = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
_ALLOWED_S: Final = 60.0
_DENIED_S: Final = 10.0
_KEPT_S: Final = 600.0
_PATIENCE_S: Final = 5.0
_MAX_TOKENS: Final = 1_000
_MAX_REVIEWS: Final = 4
_MAX_WAITING: Final = 100

_RULES: Final = (
    '{apiGroups: ["authentication.k8s.io"], resources: ["tokenreviews"], verbs: ["create"]} and'
    ' {apiGroups: ["authorization.k8s.io"], resources: ["subjectaccessreviews"], verbs: ["create"]}'
)


class Denial(NamedTuple):
    """The HTTP status and the sentence for somebody who may not read."""

    status: int
    text: str


class Creates(Protocol):
    """What is needed of a connection to the API server; see ClusterConnection."""

    async def create(self, path: str, body: object) -> bytes:
        """POST to a collection."""


class _TokenStatus(msgspec.Struct):
    authenticated: bool = False
    user: dict[str, Any] = {}


class _TokenReview(msgspec.Struct):
    status: _TokenStatus = msgspec.field(default_factory=_TokenStatus)


class _AccessStatus(msgspec.Struct):
    allowed: bool = False


class _AccessReview(msgspec.Struct):
    status: _AccessStatus = msgspec.field(default_factory=_AccessStatus)


_Review = TypeVar("_Review", _TokenReview, _AccessReview)
_Known = TypeVar("_Known")


class MetricsReview:
    """Tells whether the owner of a bearer token may ``get`` the URL ``/metrics``.

    An answer counts for 60 s, a denial for 10 s, by the hash of the token; 1,000 of either kind are
    remembered. While the API server cannot be asked, who was allowed within the last 10 minutes
    still is, and nobody else. It has 5 s to answer; four questions are under way at a time, and 100
    may wait. ``clock`` gives monotonic seconds.
    """

    def __init__(self, connection: Creates, clock: Callable[[], float]) -> None:
        self._connection = connection
        self._clock = clock
        self._allowed: OrderedDict[bytes, float] = OrderedDict()  # and when it was found out
        self._denied: OrderedDict[bytes, tuple[float, Denial]] = OrderedDict()
        self._asking: dict[bytes, asyncio.Task[Denial | None]] = {}
        self._turns = asyncio.Semaphore(_MAX_REVIEWS)
        self._told: set[int] = set()

    async def __call__(self, token: str) -> Denial | None:
        """Return None if its owner may read, else what to answer."""
        key = sha256(token.encode("utf-8", "surrogateescape")).digest()
        now = self._clock()
        if now - self._allowed.get(key, -inf) < _ALLOWED_S:
            return None
        denied_at_s, denial = self._denied.get(key, (-inf, None))
        if now - denied_at_s < _DENIED_S:
            return denial
        task = self._asking.get(key)
        if task is None:
            if len(self._asking) >= _MAX_REVIEWS + _MAX_WAITING:
                return Denial(503, "too many tokens are being reviewed; try again later")
            # A task, so that a reader who goes away takes the answer from nobody else.
            task = asyncio.create_task(self._find_out(key, token))
            self._asking[key] = task
            task.add_done_callback(lambda _: self._asking.pop(key, None))
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Ask nothing any more."""
        tasks = list(self._asking.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _find_out(self, key: bytes, token: str) -> Denial | None:
        try:
            async with asyncio.timeout(_PATIENCE_S), self._turns:
                denial = await self._ask(token)
        except TimeoutError:
            return self._unanswered(key, ApiUnreachable(f"no answer within {_PATIENCE_S:g} s"))
        except ClusterError as error:
            return self._unanswered(key, error)
        self._remember(key, denial)
        return denial

    async def _ask(self, token: str) -> Denial | None:
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token},
        }
        review = await self._create(_TOKEN_REVIEWS, body, _TokenReview)
        user = review.status.user
        if not review.status.authenticated:
            return Denial(401, "the API server does not know the token")
        spec = {name: user[name] for name in ("uid", "groups", "extra") if user.get(name)}
        spec["user"] = name = str(user.get("username", ""))
        spec["nonResourceAttributes"] = {"path": "/metrics", "verb": "get"}
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": spec,
        }
        access = await self._create(_ACCESS_REVIEWS, body, _AccessReview)
        if access.status.allowed:
            return None
        return Denial(
            403,
            f"{name} may not read: expected a ClusterRole with"
            ' {nonResourceURLs: ["/metrics"], verbs: ["get"]}',
        )

    async def _create(self, path: str, body: object, kind: type[_Review]) -> _Review:
        answer = await self._connection.create(path, body)
        try:
            return msgspec.json.decode(answer, type=kind)
        except msgspec.MsgspecError as error:
            raise ClusterError(f"what it answered is no review: {error}") from error

    def _unanswered(self, key: bytes, error: ClusterError) -> Denial | None:
        """Return what holds where the API server could not be asked, or did not say."""
        if isinstance(error, ApiError) and error.status in (401, 403):
            return self._not_permitted(error)
        if self._clock() - self._allowed.get(key, -inf) < _KEPT_S:
            return None
        return Denial(503, f"the API server cannot say who may read: {error}")

    def _not_permitted(self, error: ApiError) -> Denial:
        """Tell, in the log once, what this EPP itself must be permitted."""
        if error.status == 401:
            text = f"the API server does not accept this EPP's own credentials: {error}"
        else:
            text = (
                "this EPP's service account may not ask who may read metrics: expected a"
                f" ClusterRole with {_RULES} (or --metrics-endpoint-auth=false): {error}"
            )
        if error.status not in self._told:
            self._told.add(error.status)
            logger.error("%s", text)
        return Denial(500, text)

    def _remember(self, key: bytes, denial: Denial | None) -> None:
        self._told.clear()  # it works: when it does not any more, that is news
        now = self._clock()
        self._allowed.pop(key, None)
        self._denied.pop(key, None)
        if denial is None:
            _keep(self._allowed, key, now)
        else:
            _keep(self._denied, key, (now, denial))


def _keep(known: OrderedDict[bytes, _Known], key: bytes, value: _Known) -> None:
    known[key] = value
    if len(known) > _MAX_TOKENS:
        known.popitem(last=False)
