"""The LoRA adapters of the endpoints, as they should be by now."""

from collections import OrderedDict
from collections.abc import Container, Set
from typing import Final

import numpy as np

from epp.core.gate import Ending
from epp.core.pool import EngineLoad, Lease, Mask, Pool
from epp.core.request import Request
from epp.core.scheduling.plugin import Observer

__all__ = ["AdapterPlaces", "EndpointAdapters"]

_MOST_IDLE: Final = 256
_MOST_NAMES: Final = 4096
_FAILED: Final = 400


class EndpointAdapters:
    """What the engine told of its adapters, and what has been dispatched to it since.

    An adapter that the engine has not named, and that a request which has not ended needs, takes a
    place where one is free and waits for one where none is. One that nobody needs any more stays
    loaded until others need its place, least recently used first, as in the engines: 256 of these
    are remembered at most.

    ``loaded`` and ``waiting`` are the adapters that have a place and that wait for one,
    ``has_room`` says whether another one would get a place without waiting. They are as of the last
    :meth:`update`.
    """

    def __init__(self) -> None:
        self._places = 0
        self._told_active: Set[str] = frozenset()
        self._told_waiting: Set[str] = frozenset()
        # By model: in the order in which they came to be needed, or were needed last where it is 0.
        self._requests: dict[str, int] = {}
        self.loaded: Set[str] = frozenset()
        self.waiting: Set[str] = frozenset()
        self.has_room = False

    def told(self, load: EngineLoad) -> None:
        """Note what the engine has told."""
        self._places = load.max_adapters
        self._told_active = load.active_adapters
        self._told_waiting = load.waiting_adapters
        for name in sorted(load.active_adapters):
            if not self._requests.get(name):
                self._rest(name)

    def begin(self, model: str) -> None:
        """A request for this model goes there."""
        self._requests[model] = self._requests.get(model, 0) + 1

    def end(self, model: str, *, is_adapter: bool) -> None:
        """One has ended; nothing is to be remembered of what is no adapter."""
        requests = self._requests.get(model, 0)
        if requests > 1:
            self._requests[model] = requests - 1
        elif requests and is_adapter:
            self._rest(model)
        elif requests:
            del self._requests[model]

    def update(self, names: Container[str]) -> None:
        """Work out what is loaded by now; ``names`` are the models that are adapters."""
        active, waiting = set(self._told_active), set(self._told_waiting)
        idle = []
        for model, requests in self._requests.items():
            if model in active or model in waiting:
                continue
            if not requests:
                idle.append(model)
            elif model in names:
                has_place = len(active) + len(waiting) < self._places
                (active if has_place else waiting).add(model)
        room = max(0, self._places - len(active) - len(waiting))
        first = max(0, len(idle) - min(room, _MOST_IDLE))
        for model in idle[:first]:
            del self._requests[model]
        self.loaded = active.union(idle[first:])
        self.waiting = waiting
        self.has_room = room > 0

    def _rest(self, model: str) -> None:
        """Note that the adapter is needed no more, or by others only, and was until now."""
        self._requests.pop(model, None)
        self._requests[model] = 0


class AdapterPlaces(Observer):
    """Where which adapters are loaded, or waited for, and where there is a place for another one.

    It goes by what the engines told last and by what was dispatched and has ended since: see
    :class:`EndpointAdapters`. Where engines tell their base models, every other model is an
    adapter; where they do not, a model is one once an engine has named it, so that no base model
    takes an adapter's place. The last 4,096 names are remembered.
    """

    def __init__(self) -> None:
        self._endpoints: dict[int, EndpointAdapters] = {}
        self._names: OrderedDict[str, None] = OrderedDict()  # least recently told first
        self._base_models: frozenset[str] = frozenset()
        self._loaded_at: dict[str, set[int]] = {}
        self._waiting_at: dict[str, set[int]] = {}
        self._has_room: Mask = np.zeros(0, dtype=np.bool_)
        self._note = object()  # the key of what is noted of a lease, also for a successor

    def is_adapter(self, model: str) -> bool:
        """Whether a model is an adapter, as far as the engines have told."""
        if model in self._names:
            return True
        return bool(model and self._base_models) and model not in self._base_models

    def __contains__(self, model: object) -> bool:
        """Say the same, as a container of adapters."""
        return isinstance(model, str) and self.is_adapter(model)

    def loaded_at(self, model: str) -> list[int]:
        """Return the slots of the endpoints that have an adapter loaded."""
        return list(self._loaded_at.get(model, ()))

    def waiting_at(self, model: str) -> list[int]:
        """Return the slots of the endpoints at which requests wait for an adapter's place."""
        return list(self._waiting_at.get(model, ()))

    def has_room(self, slots: int) -> Mask:
        """Return the mask, shape ``(slots,)``, of the endpoints that have a place to spare. It is
        not to be changed."""
        self._reserve(slots)
        return self._has_room

    def succeed(self, former: Observer) -> None:
        """Go on with what the former knew."""
        if isinstance(former, AdapterPlaces):
            self._endpoints = former._endpoints
            self._names = former._names
            self._base_models = former._base_models
            self._loaded_at = former._loaded_at
            self._waiting_at = former._waiting_at
            self._has_room = former._has_room
            self._note = former._note

    # epp.core.scheduling.Observer

    def placed(self, request: Request, lease: Lease, now: float) -> None:
        """The endpoint will need the adapter."""
        lease.notes[self._note] = True
        self._begin(lease.slot, request.model)

    def moved(self, request: Request, lease: Lease, from_slot: int, now: float) -> None:
        """Another endpoint will."""
        if self._note in lease.notes:
            self._end(from_slot, request.model, is_loaded=True)
            self._begin(lease.slot, request.model)

    def ended(self, request: Request, lease: Lease, ending: Ending, now: float) -> None:
        """The endpoint may need it no more."""
        if self._note in lease.notes:
            # Models that there are not, which anybody can name, are not loaded anywhere.
            self._end(lease.slot, request.model, is_loaded=ending.status < _FAILED)

    def scraped(self, pool: Pool, slot: int, load: EngineLoad, now: float) -> None:
        """The engine has told of its adapters."""
        named = load.active_adapters | load.waiting_adapters
        if not (named or load.max_adapters or slot in self._endpoints):
            return
        if not load.base_models <= self._base_models and len(self._base_models) < _MOST_NAMES:
            self._base_models |= load.base_models
        for name in sorted(named):
            self._names[name] = None
            self._names.move_to_end(name)
        while len(self._names) > _MOST_NAMES:
            self._names.popitem(last=False)
        self._of(slot).told(load)
        self._update(slot)

    def freed(self, slot: int) -> None:
        """The endpoint is gone."""
        self._forget(slot)

    def restarted(self, slot: int) -> None:
        """The engine has nothing loaded."""
        self._forget(slot)

    def _begin(self, slot: int, model: str) -> None:
        self._of(slot).begin(model)
        if model in self:
            self._update(slot)

    def _end(self, slot: int, model: str, *, is_loaded: bool) -> None:
        is_adapter = model in self
        self._of(slot).end(model, is_adapter=is_adapter and is_loaded)
        if is_adapter:
            self._update(slot)

    def _of(self, slot: int) -> EndpointAdapters:
        found = self._endpoints.get(slot)
        if found is None:
            found = self._endpoints[slot] = EndpointAdapters()
        return found

    def _update(self, slot: int) -> None:
        endpoint = self._endpoints[slot]
        loaded, waiting = endpoint.loaded, endpoint.waiting
        endpoint.update(self)
        _reindex(self._loaded_at, slot, loaded, endpoint.loaded)
        _reindex(self._waiting_at, slot, waiting, endpoint.waiting)
        self._reserve(slot + 1)
        self._has_room[slot] = endpoint.has_room

    def _forget(self, slot: int) -> None:
        endpoint = self._endpoints.pop(slot, None)
        if endpoint is not None:
            _reindex(self._loaded_at, slot, endpoint.loaded, frozenset())
            _reindex(self._waiting_at, slot, endpoint.waiting, frozenset())
            self._reserve(slot + 1)
            self._has_room[slot] = False

    def _reserve(self, slots: int) -> None:
        missing = slots - len(self._has_room)
        if missing > 0:
            self._has_room = np.concatenate([self._has_room, np.zeros(missing, dtype=np.bool_)])


def _reindex(at: dict[str, set[int]], slot: int, before: Set[str], after: Set[str]) -> None:
    """Have a slot under the names of ``after`` in place of those of ``before``."""
    for name in before - after:
        at[name].discard(slot)
        if not at[name]:
            del at[name]
    for name in after - before:
        at.setdefault(name, set()).add(slot)
