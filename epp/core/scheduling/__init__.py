"""Where a request goes: the pick among the candidates that have room."""

from epp.core.scheduling.scheduler import LeastLoaded, Scheduler

__all__ = ["LeastLoaded", "Scheduler"]
