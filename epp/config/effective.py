"""The effective configuration: every value that holds, and where it comes from.

It has the shape of an EndpointPickerConfig: read again, it stands for the same.
"""

from epp.config.data_plugins import DATA_TYPES, EXTRACTOR, SOURCE
from epp.config.effective_flow import flow_entry
from epp.config.entries import DEFAULT, Entry, EntryReader, child_of, default_entry, references
from epp.config.picker_config import Reading
from epp.config.plugin_type import PluginType
from epp.config.scheduling import DEFAULT_HANDLER, DEFAULT_PROFILE, PlannedProfile
from epp.config.schema import ProfileSection
from epp.discovery.documents import Node

__all__ = ["effective"]


def effective(name: str, reading: Reading) -> Entry:
    """Return the effective configuration of a file that is called ``name``."""
    reader = EntryReader(name)
    parts = {
        "schedulingProfiles": _profiles(reading, reader),
        "dataLayer": _data_layer(reading, reader),
        "requestHandler": _request_handler(reading, reader),
        "flowControl": flow_entry(reading, reader),
    }
    parts["plugins"] = _plugins(reading, reader, Entry(parts))
    whole = reader.struct(reading.document, reading.root, own=parts)
    # Deprecated: what they say stands at its present place.
    for former in ("saturationDetector", "parser"):
        whole.pop(former, None)
    return Entry(whole, name)


# Plugins


def _plugins(reading: Reading, reader: EntryReader, parts: Entry) -> Entry:
    """Return all plugins that are declared, and then those that are in use without."""
    items: dict[str, Entry] = {}
    for plugin in reading.plugins.entries:
        node = reading.plugins.place(plugin.name).node
        given, explains = child_of(node, "parameters"), plugin.type.explains
        parameters = reader.struct(plugin.parameters, given, explains=explains)
        entry = {
            "name": reader.field(node, "name", plugin.name, "implied by its type"),
            "type": Entry(plugin.type.type, reader.at(node), plugin.type.summary),
            "parameters": Entry(parameters),
        }
        items[plugin.name] = Entry(entry, reader.at(node))
    for planned in reading.config.scheduling.plugins:
        type_ = reading.plugins.types[planned.definition.type]
        if planned.name not in items and planned.name != DEFAULT_HANDLER:
            items[planned.name] = _implied(type_, planned.implied_by, reader)
    for path, name in references(parts):
        found = reading.plugins.types.get(name)
        if found is not None and name not in items and _is_worth_telling(found):
            items[name] = _implied(found, path, reader)
    return Entry(list(items.values()))


def _is_worth_telling(type_: PluginType) -> bool:
    """Return whether there is more to say of a type than its name; an entry of a profile handler
    would make it the one that chooses."""
    has_any = bool(type_.parameters.__struct_fields__) and not type_.required
    return has_any and type_.kind != "profile handler"


def _implied(type_: PluginType, by: str, reader: EntryReader) -> Entry:
    origin = f"implied by {by}"
    parameters = reader.struct(type_.parameters(), None, explains=type_.explains)
    entry = {
        "name": Entry(type_.type, origin),
        "type": Entry(type_.type, origin, type_.summary),
        "parameters": Entry(parameters),
    }
    return Entry(entry, origin)


# Scheduling


def _profiles(reading: Reading, reader: EntryReader) -> Entry:
    plan, sections = reading.config.scheduling, reading.document.scheduling_profiles
    made = plan.new_scheduler().profiles
    weights = [{each.name: each.weight for each in made[p.name].scorers} for p in plan.profiles]
    if not sections:
        [profile], [scorers] = plan.profiles, weights
        is_default = profile == DEFAULT_PROFILE
        origin = DEFAULT if is_default else "implied by plugins, as there are no schedulingProfiles"
        items = _profile_items(profile, {}, scorers, origin)
        return Entry([Entry({"name": Entry(profile.name, origin), "plugins": items})], origin)
    root = child_of(reading.root, "schedulingProfiles")
    assert root is not None
    assert isinstance(root.value, list)
    found: list[Entry] = []
    for index, (profile, node) in enumerate(zip(plan.profiles, root.value, strict=True)):
        given = _given_items(sections[index], node, weights[index], reader)
        name = reader.field(node, "name", profile.name, DEFAULT)
        plugins = _profile_items(profile, given, weights[index], "implied")
        found.append(Entry({"name": name, "plugins": plugins}, reader.at(node)))
    return Entry(found, reader.at(root))


def _given_items(
    section: ProfileSection, node: Node, weights: dict[str, float], reader: EntryReader
) -> dict[str, Entry]:
    plugins = child_of(node, "plugins")
    nodes = plugins.value if plugins is not None and isinstance(plugins.value, list) else []
    found: dict[str, Entry] = {}
    for item, child in zip(section.plugins, nodes, strict=True):
        entry = reader.struct(item, child)
        if item.plugin_ref in weights:
            entry.setdefault("weight", Entry(weights[item.plugin_ref]))
        found[item.plugin_ref] = Entry(entry, reader.at(child))
    return found


def _profile_items(
    profile: PlannedProfile, given: dict[str, Entry], weights: dict[str, float], origin: str
) -> Entry:
    """Return the plugins of a profile: those that are given, and what it has besides."""
    items = dict(given)
    for name in (*(item.plugin for item in profile.items), profile.picker):
        if name not in items:
            where = "implied, as the profile has no picker" if given else origin
            entry = {"pluginRef": Entry(name, where)}
            if name in weights:
                entry["weight"] = Entry(weights[name], where)
            items[name] = Entry(entry, where)
    return Entry(list(items.values()))


# The data layer, and what is read of requests


def _data_layer(reading: Reading, reader: EntryReader) -> Entry:
    section, node = reading.document.data_layer, child_of(reading.root, "dataLayer")
    extractors = default_entry([{"pluginRef": EXTRACTOR}])
    own: dict[str, Entry] = {}
    if section.sources:
        nodes = child_of(node, "sources")
        assert nodes is not None
        assert isinstance(nodes.value, list)
        [source], [child] = section.sources, nodes.value
        entry = reader.struct(source, child)
        if not source.extractors:
            entry["extractors"] = extractors
        own["sources"] = Entry([Entry(entry, reader.at(child))], reader.at(nodes))
    elif reading.config.scrape is not None:
        entry = {"pluginRef": Entry(SOURCE), "extractors": extractors}
        own["sources"] = Entry([Entry(entry)])
    return Entry(reader.struct(section, node, own=own))


def _request_handler(reading: Reading, reader: EntryReader) -> Entry:
    section, node = reading.document.request_handler, child_of(reading.root, "requestHandler")
    deprecated = reading.document.parser
    if section.parsers:
        return Entry(reader.struct(section, node))
    taken = {each.name for each in reading.plugins.entries if each.type.kind != "parser"}
    parsers = (type_.type for type_ in DATA_TYPES if type_.kind == "parser")
    names = [name for name in parsers if name not in taken]
    origin = DEFAULT
    if deprecated is not None:
        names, origin = [deprecated.plugin_ref], "implied by parser"
    refs = [{"pluginRef": name} for name in names]
    return Entry({"parsers": default_entry(refs, origin)})
