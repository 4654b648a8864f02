"""Pods that come, go and change all the time, at a rate: what watches are measured with."""

import asyncio
import copy
import random
import time

from .objects import pod
from .server import ApiServer
from .store import Object

__all__ = ["Churn", "address_of"]

_TURN_S = 0.02


class Churn:
    """Keeps a number of pods, and changes them so many times a second.

    Of the events, a half changes nothing that matters to anybody who picks endpoints (a heartbeat
    in an annotation), a quarter makes a pod ready or not, and a quarter replaces a pod by another:
    that is an event for the one that goes and one for the one that comes. Pod ``n`` of namespace
    ``default`` has an address of its own in 127.1.0.0/16 upwards, and the next one takes it over.
    """

    def __init__(self, server: ApiServer, *, seed: int = 0) -> None:
        self._server = server
        self._random = random.Random(seed)
        self._pods: list[Object] = []
        self._made = 0
        self.rate_per_s = 0.0
        self.events = 0

    def fill(self, number: int) -> None:
        """Begin with so many pods, all of them ready."""
        self._pods = [self._new(slot) for slot in range(number)]

    def change_rate(self, rate_per_s: float) -> dict[str, float]:
        """Change pods at this rate from now on; return how many events there have been."""
        self.rate_per_s = rate_per_s
        return {"events": self.events, "at_s": time.monotonic()}

    async def run(self) -> None:
        """Do so for ever."""
        due = 0.0
        last_s = time.monotonic()
        while True:
            await asyncio.sleep(_TURN_S)
            now_s = time.monotonic()
            due = min(due + (now_s - last_s) * self.rate_per_s, 2 * self.rate_per_s)
            last_s = now_s
            while due >= 1.0 and self._pods:
                made = self._change()
                self.events += made
                due -= made

    def _change(self) -> int:
        slot = self._random.randrange(len(self._pods))
        chance = self._random.random()
        if chance < 1 / 7:  # of 8 events, 2 come of one of 7 changes
            metadata = self._pods[slot]["metadata"]
            self._server.delete("v1", "Pod", "default", metadata["name"])
            self._pods[slot] = self._new(slot)
            return 2
        item = copy.deepcopy(self._pods[slot])
        if chance < 3 / 7:
            for condition in item["status"]["conditions"]:
                if condition["type"] == "Ready":
                    condition["status"] = "False" if condition["status"] == "True" else "True"
        else:
            item["metadata"].setdefault("annotations", {})["heartbeat"] = str(self.events)
        self._pods[slot] = self._server.put(item)
        return 1

    def _new(self, slot: int) -> Object:
        self._made += 1
        return self._server.put(pod(f"model-{slot}-{self._made}", address_of(slot)))


def address_of(slot: int) -> str:
    """Return the address of the pod that takes this place among all of them."""
    return f"127.{1 + slot // 62_500}.{slot % 62_500 // 250}.{1 + slot % 250}"
