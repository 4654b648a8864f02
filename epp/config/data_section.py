"""``dataLayer`` and ``requestHandler`` of a configuration → what is fetched of engines, and whether
bodies are read."""

from typing import Any, Final

from epp.config.data_plugins import EXTRACTOR, PASSTHROUGH, SOURCE
from epp.config.places import Place
from epp.config.plugins import Plugins
from epp.config.schema import DataSection, PickerDocument
from epp.config.scrape import ScrapeOptions

__all__ = ["read_data_layer", "reads_bodies"]

_NO_SUCH_PARTS: Final = {
    "discovery": "epp serve --manifests DIR says where endpoints come from",
    "peer_discovery": "it has no plugins for it",
    "cross_replica_syncer_plugin_ref": "it has no plugins for it",
    "cross_replica_sync_interval": "it has no plugins for it",
}


def read_data_layer(section: DataSection, place: Place, plugins: Plugins) -> ScrapeOptions | None:
    """Return how metrics pages are fetched, None where they are not.

    What is wrong is reported; the value is of no use then.
    """
    for field, hint in _NO_SUCH_PARTS.items():
        if getattr(section, field) is not None:
            (place / _camel(field)).report(f"this version has no such part; {hint}")
    source: dict[str, Any] | None = None
    extractor: dict[str, Any] = {}
    for index, each in enumerate(section.sources):
        where = place / "sources" / index
        found = plugins.get(each.plugin_ref, "data source", where / "pluginRef")
        if source is not None and found is not None:
            (where / "pluginRef").report(f"found another data source; expected one {SOURCE}")
        source = found if source is None else source
        extractor = _extractor(each.extractors, where / "extractors", plugins, extractor)
    if source is None:
        if not section.inject_defaults:
            return None
        source = plugins.get(SOURCE, "data source", place) or {}
    if not extractor:
        extractor = plugins.get(EXTRACTOR, "extractor", place) or {}
    return ScrapeOptions(**source, **extractor)


def _extractor(
    refs: tuple[Any, ...], place: Place, plugins: Plugins, before: dict[str, Any]
) -> dict[str, Any]:
    for index, ref in enumerate(refs):
        where = place / index / "pluginRef"
        found = plugins.get(ref.plugin_ref, "extractor", where)
        if before and found:
            where.report(f"found another extractor; expected one {EXTRACTOR}")
        before = before or found or {}
    return before


def reads_bodies(document: PickerDocument, root: Place, plugins: Plugins, notes: list[str]) -> bool:
    """Return whether bodies are looked into: not where the only parser passes them through."""
    refs = [
        (ref.plugin_ref, root / "requestHandler" / "parsers" / index / "pluginRef")
        for index, ref in enumerate(document.request_handler.parsers)
    ]
    if document.parser is not None:
        notes.append("parser is deprecated; use requestHandler.parsers")
        refs = refs or [(document.parser.plugin_ref, root / "parser" / "pluginRef")]
    found = [plugins.get(name, "parser", place) for name, place in refs]
    if found == [PASSTHROUGH]:
        return False
    if refs:
        notes.append(
            "requestHandler.parsers: a body is read as its path and fields tell, so all parsers are"
            " always on"
        )
    return True


def _camel(field: str) -> str:
    first, *rest = field.split("_")
    return first + "".join(map(str.capitalize, rest))
