"""The recorder that counts nothing takes all that there is to count."""

from epp.core.gate import Ending
from epp.core.ports import NullRecorder, Recorder
from epp.core.request import Outcome

from .support import request


def test_null_recorder_takes_everything() -> None:
    recorder: Recorder = NullRecorder()
    recorder.wait_ended(request(), Outcome.DISPATCHED, 0.5)
    recorder.refused_early("too-large")
    recorder.adopted(request())
    recorder.overridden(0, "min-share")
    recorder.settled(request(), 10, 12)
    recorder.ended(
        request(), Ending(status=200, cause="complete", duration_s=1.0, response_bytes=None)
    )
