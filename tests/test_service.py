"""The composition root, where nothing of it is seen from outside."""

import asyncio

import pytest

from epp.service import _tell_failure


async def test_a_watch_that_fails_is_told(caplog: pytest.LogCaptureFixture) -> None:
    async def fails() -> None:
        raise KeyError("a plugin of others")

    async def goes_on() -> None:
        await asyncio.Event().wait()

    failed, ended = (asyncio.create_task(each(), name="watch it") for each in (fails, goes_on))
    ended.cancel()
    await asyncio.gather(failed, ended, return_exceptions=True)
    _tell_failure(ended)
    assert not caplog.records
    _tell_failure(failed)
    assert "watch it has failed" in caplog.text
    assert "a plugin of others" in caplog.text
