"""Engines in place of the client of a scraper."""

import pytest

from epp.engines import scraper as module

from .virtual_engines import Engines


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> Engines:
    engines = Engines()
    monkeypatch.setattr(module, "PageClient", engines)
    return engines
