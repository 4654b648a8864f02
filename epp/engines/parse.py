"""From an engine's metrics page to its load."""

import math
from collections.abc import Iterable, Mapping

from epp.config.scrape import EngineMap
from epp.core.pool import EngineLoad
from epp.engines.dialects import known_engines, metrics_of
from epp.engines.layout import Layout
from epp.engines.places import Places
from epp.engines.samples import Finder

__all__ = ["Dialects", "PageReader"]


class Dialects:
    """The engines that are known, ready to read pages: those ``configured`` and the built-in ones.

    ``any_finder`` finds the metrics of all of them.
    """

    def __init__(self, configured: Iterable[EngineMap] = ()) -> None:
        self.engines: Mapping[str, EngineMap] = known_engines(configured)
        names = {engine: metrics_of(each) for engine, each in self.engines.items()}
        self.finders = {engine: Finder(metrics) for engine, metrics in names.items()}
        self.any_finder = Finder(metric for metrics in names.values() for metric in metrics)


class PageReader:
    """Reads the pages of one endpoint, one after the other.

    ``engine`` is whose metrics the last page had, empty where it was not to be read.
    """

    def __init__(self, dialects: Dialects) -> None:
        self._dialects = dialects
        self._layout: Layout | None = None
        self._places: Places | None = None
        self._series: list[tuple[bytes, bytes | None, bool]] = []
        self.engine = ""

    def read(self, page: bytes, engine: str = "") -> EngineLoad | None:
        """Return the load that a page tells, None where it does not.

        It is read as this engine's page. With none named it is the page of the engine of which the
        page before was, or else of the first that finds in it how many requests wait and how many
        run; the first that finds one of the two where no engine finds both.

        What is not told is NaN, 0 or empty. So is what a page tells in an unreadable way, in part,
        or with values that cannot be: no number, below 0, or a share above 1.
        """
        wanted = engine or self.engine
        if wanted and wanted == self.engine and (load := self._again(page)) is not None:
            return load
        load = self._as_page_of(wanted, page) if wanted else None
        if load is None and not engine:
            load = self._as_any_page(page)
        if load is None:
            self.engine = ""
        return load

    def _again(self, page: bytes) -> EngineLoad | None:
        """Read a page that looks like the one before."""
        if self._layout is None or self._places is None:
            return None
        values = self._places.values(page)
        return None if values is None else self._layout.load(values)

    def _as_page_of(self, engine: str, page: bytes) -> EngineLoad | None:
        samples = self._dialects.finders[engine].find(page)
        series = [(each.name, each.labels, math.isnan(each.value)) for each in samples]
        layout = self._layout
        if layout is None or engine != self.engine or series != self._series:
            layout = Layout(self._dialects.engines[engine], samples)
        load = layout.load([sample.value for sample in samples])
        if load is not None:
            self.engine, self._layout, self._series = engine, layout, series
            self._places = Places(page, samples)
        return load

    def _as_any_page(self, page: bytes) -> EngineLoad | None:
        samples = self._dialects.any_finder.find(page)
        values = [sample.value for sample in samples]
        found = None
        for name, engine in self._dialects.engines.items():
            load = Layout(engine, samples).load(values)
            if load is None:
                continue
            if not math.isnan(load.waiting + load.running):
                return self._as_page_of(name, page)
            found = found or name
        return None if found is None else self._as_page_of(found, page)
