"""A pool with a detector, and endpoints that say what they are told to say."""

from collections.abc import Mapping

from epp.core.flow.saturation import SaturationOptions, make_detector
from epp.core.gate import Ending
from epp.core.pool import EngineLoad, Lease, Pool
from epp.core.resources import Endpoint
from epp.core.timers import Timers


class World:
    def __init__(self, options: SaturationOptions, *labels: Mapping[str, str]) -> None:
        self.pool = Pool(max_concurrency=1)
        self.timers = Timers()
        self.detector = make_detector(options, self.pool, self.timers)
        self.pool.on_joined = self.detector.joined
        self.pool.on_changed = self.detector.changed
        self.endpoints = [
            Endpoint(name=f"default/{i}", address="10.0.0.1", port=8000 + i, labels=each)
            for i, each in enumerate(labels or ({},))
        ]
        self.pool.apply(self.endpoints)
        self.leases: list[tuple[Lease, float]] = []
        self.now = 0.0

    def limit(self, slot: int = 0) -> int:
        return int(self.pool.limit[slot])

    @property
    def reason(self) -> str | None:
        """Why the first endpoint is closed, filled up if need be."""
        taken = []
        while self.pool.has_room:
            taken.append(self.pool.lease(0))
        reason = self.pool.closed_by(0)
        for lease in taken:
            lease.release()
        return reason

    def dispatch(self, count: int | None = None) -> int:
        """Send so many requests, or as many as there is room for; return how many went."""
        sent = 0
        while self.pool.has_room and sent != count:
            self.leases.append((self.pool.lease(0), self.now))
            self.detector.dispatched(0, self.now)
            sent += 1
        return sent

    def end(self, count: int = 1, **ending: object) -> None:
        """End the oldest requests."""
        for _ in range(count):
            lease, since_s = self.leases.pop(0)
            slot = lease.slot
            lease.release()
            said = {"status": 200, "cause": "complete", "output_tokens": 100, **ending}
            duration_s = self.now - since_s
            self.detector.ended(
                slot,
                Ending(duration_s=duration_s, response_bytes=None, **said),  # type: ignore[arg-type]
                duration_s,
                self.now,
            )

    def scrape(self, waiting: float, running: float, kv_ratio: float, *, after_s: float = 1.0):
        """Let time pass, then report."""
        self.wait(after_s)
        load = EngineLoad(waiting=waiting, running=running, kv_ratio=kv_ratio)
        self.pool.scraped(0, load, self.now)
        self.detector.scraped(0, load, self.now)

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.timers.run(self.now)

    def rejoin(self) -> None:
        """Let the endpoint leave and come back."""
        self.pool.apply([])
        self.pool.apply(self.endpoints)
