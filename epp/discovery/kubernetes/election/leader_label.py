"""The label of the leader's pod, by which a Service finds it.

Who leads puts the label on its own pod first and then takes it off the others; who leads no more
keeps it until another pod bears it. So a Service that selects the label always has somebody, and in
between two that both serve. A leader that was killed or cut off cannot take anything off: the next
one does it in its place.
"""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any, Final, NamedTuple

import msgspec

from epp.discovery.cluster import LeaderLabelOptions
from epp.discovery.kubernetes.api.backoff import Backoff
from epp.discovery.kubernetes.api.connection import ClusterConnection
from epp.discovery.kubernetes.api.errors import ApiError, ClusterError
from epp.discovery.kubernetes.waiting import wait_at_most

__all__ = ["LABEL_RESULTS", "LEASE_ANNOTATION", "LabelStep", "LeaderLabel", "label_steps"]

logger = logging.getLogger(__name__)

LEASE_ANNOTATION: Final = "inference-epp/lease"
"""Beside the label: the Lease whose holder the pod is. What other EPPs have labelled stays."""

OK: Final = "ok"
GONE: Final = "gone"
CONFLICT: Final = "conflict"
REFUSED: Final = "refused"
FAILED: Final = "failed"

LABEL_RESULTS: Final = (OK, GONE, CONFLICT, REFUSED, FAILED)
"""What may come of a request: done, there is no such pod (404), the pod has changed meanwhile
(409), not allowed (403), no good answer."""

_LOOK_AGAIN_S: Final = 10.0
_SUCCESSOR_S: Final = 1.0
_MAY_WRITE_S: Final = 0.5
_CONFLICT_S: Final = 0.1
_REFUSED_PAUSE_S: Final = 30.0
_TIMEOUT_S: Final = 10.0
_END_S: Final = 1.0


class _Meta(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    version: str = msgspec.field(default="", name="resourceVersion")
    annotations: dict[str, str] = {}


class _Pod(msgspec.Struct, frozen=True):
    metadata: _Meta


class _Pods(msgspec.Struct, frozen=True):
    items: list[_Pod] = []


class LabelStep(NamedTuple):
    """A pod shall bear the label, or not; only if it is of this version still, where one is
    named."""

    pod: str
    bears: bool
    version: str = ""


def label_steps(bearers: Iterable[tuple[str, str]], own: str, *, leads: bool) -> list[LabelStep]:
    """Return what is to be done, in this order: ``bearers`` are the pods that bear the label and
    their versions, ``own`` is the one that ``leads`` or not."""
    versions = dict(bearers)
    is_borne = versions.pop(own, None) is not None
    if not leads:
        return [LabelStep(own, False)] if is_borne and versions else []
    put = [] if is_borne else [LabelStep(own, True)]
    return put + [LabelStep(pod, False, version) for pod, version in versions.items()]


class LeaderLabel:
    """Keeps the label where it belongs, among the pods that want the Lease ``lease_name``.

    It is put on while ``may_write`` says so, and taken off once ``is_leader`` does not say so any
    more. Whoever knows that one of them has changed calls :meth:`changed`. The leader looks every
    10 s whether all is as it should be. What has failed is tried again after up to 30 s.

    :attr:`results` counts requests by one of :data:`LABEL_RESULTS`.
    """

    def __init__(
        self,
        connection: ClusterConnection,
        label: LeaderLabelOptions,
        *,
        lease_name: str,
        is_leader: Callable[[], bool],
        may_write: Callable[[], bool],
        rng: random.Random,
    ) -> None:
        self.results: Counter[str] = Counter(dict.fromkeys(LABEL_RESULTS, 0))
        self._connection = connection
        self._label = label
        self._lease_name = lease_name
        self._is_leader = is_leader
        self._may_write = may_write
        self._backoff = Backoff(rng)
        self._decoder = msgspec.json.Decoder(_Pods)
        self._path = f"/api/v1/namespaces/{label.namespace}/pods"
        self._poke = asyncio.Event()
        self._looked_as_leader: bool | None = None
        self._bears = False
        self._complaint = ""

    def changed(self) -> None:
        """This one leads, or leads no more."""
        self._poke.set()

    async def run(self) -> None:
        """Keep it for ever, or until cancelled."""
        while True:
            self._poke.clear()
            pause_s = await self._try_to_look()
            await wait_at_most(self._poke, pause_s)

    async def end(self) -> None:
        """Take the label off the own pod, once :meth:`run` has ended: nobody is there any more.
        Gives up after 1 s."""
        if not self._bears:
            return
        try:
            async with asyncio.timeout(_END_S):
                await self._take(LabelStep(self._label.pod, False))
        except (ClusterError, TimeoutError) as error:
            logger.warning("%s stays on pod %s: %s", self._text, self._label.pod, _reason(error))

    @property
    def _text(self) -> str:
        return f"label {self._label.key}={self._label.value}"

    async def _try_to_look(self) -> float:
        """See to it, and return when to look again, in seconds."""
        leads = self._may_write()
        is_settled = self._looked_as_leader is not None and not self._bears
        if not leads and (self._is_leader() or is_settled):
            return _MAY_WRITE_S if self._is_leader() else _LOOK_AGAIN_S
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                await self._look(leads)
        except ApiError as error:
            return self._take_error(error)
        except (ClusterError, TimeoutError, msgspec.DecodeError) as error:
            self.results[FAILED] += 1
            self._complain(_reason(error))
            return self._backoff.next_s()
        self._looked_as_leader = leads
        self._backoff.reset()
        self._complain("")
        return _SUCCESSOR_S if self._bears and not leads else _LOOK_AGAIN_S

    async def _look(self, leads: bool) -> None:
        bearers = await self._bearers(is_first=self._looked_as_leader is not leads)
        own = self._label.pod
        self._bears = own in bearers
        for step in label_steps(bearers.items(), own, leads=leads):
            if self._may_write() is not leads:
                self._poke.set()
                return
            try:
                await self._take(step)
            except ApiError as error:
                if error.status != HTTPStatus.NOT_FOUND or step.pod == own:
                    raise
                self.results[GONE] += 1

    async def _bearers(self, *, is_first: bool) -> dict[str, str]:
        """Return the pods that bear the label for this Lease, and their versions."""
        params = {"labelSelector": f"{self._label.key}={self._label.value}"}
        if not is_first:
            params["resourceVersion"] = "0"  # from memory: it is looked at again and again
        data = await self._connection.get(self._path, params, verb="list")
        pods = (pod.metadata for pod in self._decoder.decode(data).items)
        return {
            pod.name: pod.version
            for pod in pods
            if pod.annotations.get(LEASE_ANNOTATION) == self._lease_name
        }

    async def _take(self, step: LabelStep) -> None:
        is_own = step.pod == self._label.pod
        if is_own:
            self._bears = True  # as far as anybody knows, until there is an answer
        metadata: dict[str, Any] = {
            "labels": {self._label.key: self._label.value if step.bears else None},
            "annotations": {LEASE_ANNOTATION: self._lease_name if step.bears else None},
        }
        if step.version:
            metadata["resourceVersion"] = step.version
        await self._connection.patch(f"{self._path}/{step.pod}", {"metadata": metadata})
        self.results[OK] += 1
        if is_own:
            self._bears = step.bears
        text = "%s is on pod %s" if step.bears else "%s is off pod %s"
        logger.info(text, self._text, step.pod)

    def _take_error(self, error: ApiError) -> float:
        if error.status == HTTPStatus.CONFLICT:
            self.results[CONFLICT] += 1
            return max(_CONFLICT_S, self._backoff.next_s())
        if error.status == HTTPStatus.FORBIDDEN:
            self.results[REFUSED] += 1
            rule = 'apiGroups: [""], resources: [pods], verbs: [list, patch]'
            missing = f"needs the rule {rule} in namespace {self._label.namespace}"
            self._complain(f"{missing}: {error}")
            return _REFUSED_PAUSE_S
        self.results[GONE if error.status == HTTPStatus.NOT_FOUND else FAILED] += 1
        self._complain(str(error))
        return max(self._backoff.next_s(), min(error.retry_after_s or 0.0, _REFUSED_PAUSE_S))

    def _complain(self, problem: str) -> None:
        if problem and problem != self._complaint:
            logger.warning("%s may be on the wrong pod: %s", self._text, problem)
        elif self._complaint and not problem:
            logger.info("%s is where it belongs again", self._text)
        self._complaint = problem


def _reason(error: Exception) -> str:
    return str(error) or "no answer in time"
