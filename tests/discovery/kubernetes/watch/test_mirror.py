"""Whatever the API server's words go through on their way, the mirror comes to what it has."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epp.discovery.kubernetes.watch.mirror import Changes, Key, Mirror


class Meta(msgspec.Struct, frozen=True):
    name: str
    resource_version: str
    namespace: str = "ns"


class Thing(msgspec.Struct, frozen=True):
    metadata: Meta


def thing(name: str, version: int | str) -> Thing:
    return Thing(Meta(name, str(version)))


class Collection:
    """The API server's side: what is there, and the history of events that led to it."""

    def __init__(self) -> None:
        self.version = 100
        self.objects: dict[Key, Thing] = {}
        self.history: list[tuple[str, Thing]] = []

    def set(self, name: str, present: bool) -> None:
        key = Key("ns", name)
        if not present and key not in self.objects:
            return
        self.version += 7
        item = thing(name, self.version)
        if present:
            self.objects[key] = item
            self.history.append(("PUT", item))
        else:
            del self.objects[key]
            self.history.append(("DELETED", item))


class Listener:
    """A client of the mirror that knows nothing but the differences that it was told of."""

    def __init__(self) -> None:
        self.objects: dict[Key, Thing] = {}

    def tell(self, changes: Changes[Thing] | None) -> None:
        if changes is None:
            return
        for item in changes.present:
            key = Key(item.metadata.namespace, item.metadata.name)
            assert self.objects.get(key) != item, "told twice"
            self.objects[key] = item
        for item in changes.gone:
            assert self.objects.pop(Key("ns", item.metadata.name)) == item


def take(mirror: Mirror[Thing], kind: str, item: Thing) -> Changes[Thing] | None:
    return mirror.put(item) if kind == "PUT" else mirror.delete(item.metadata)


names = st.sampled_from("abcd")
steps = st.one_of(
    st.tuples(st.just("set"), names, st.booleans()),
    st.tuples(st.just("set"), names, st.booleans()),
    st.tuples(st.just("watch"), st.integers(0, 4), st.integers(1, 2)),
    st.tuples(st.just("stale"), st.integers(0, 30), st.integers(1, 3)),
    st.tuples(st.just("list"), st.just(0), st.just(0)),
    st.tuples(st.just("bookmark"), st.just(0), st.just(0)),
    st.tuples(st.just("restore"), st.just(0), st.just(0)),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(steps, max_size=60))
def test_any_history_with_drops_repetitions_and_lists_converges(script: list[tuple]) -> None:
    server = Collection()
    mirror: Mirror[Thing] = Mirror()
    listener = Listener()

    def watch(limit: int | None, repeat: int) -> None:
        """A watch from the last version, dropped after ``limit`` events, each of which comes
        ``repeat`` times."""
        newer = [
            (kind, item)
            for kind, item in server.history
            if int(item.metadata.resource_version) > int(mirror.version)
        ]
        for kind, item in newer[:limit]:
            for _ in range(repeat):
                listener.tell(take(mirror, kind, item))

    def relist() -> None:
        listener.tell(mirror.replace(server.objects.values(), str(server.version)))

    relist()
    for what, first, second in script:
        match what:
            case "set":
                server.set(first, second)
            case "watch":
                watch(first, second)
            case "stale":  # events that have been taken come again, late, in order
                known = [
                    event
                    for event in server.history
                    if int(event[1].metadata.resource_version) <= int(mirror.version)
                ]
                for kind, item in known[first : first + second]:
                    assert take(mirror, kind, item) is None
            case "list":
                relist()
            case "bookmark":  # is sent when all events up to it were
                watch(None, 1)
                mirror.bookmark(str(server.version))
            case "restore":  # of a backup of the storage: versions go back
                server.version -= 50
                server.history.clear()
                relist()
    watch(None, 1)
    assert mirror.objects == server.objects == listener.objects


def test_the_same_version_of_an_object_is_no_change_in_a_list() -> None:
    mirror: Mirror[Thing] = Mirror()
    a, b = thing("a", 1), thing("b", 2)
    assert mirror.replace([a, b], "5") == Changes((a, b), ())
    changed = thing("b", 6)
    assert mirror.replace([thing("a", 1), changed], "7") == Changes((changed,), ())
    assert mirror.replace([a], "8") == Changes((), (changed,))


def test_what_could_not_be_read_stays_as_it_was_but_is_not_made_up() -> None:
    mirror: Mirror[Thing] = Mirror()
    a = thing("a", 1)
    mirror.replace([a], "5")
    assert mirror.replace([], "7", kept={Key("ns", "a"), Key("ns", "never-seen")}) == Changes()
    assert dict(mirror.objects) == {Key("ns", "a"): a}


@pytest.mark.parametrize(
    ("known", "version", "is_newer"),
    [
        ("9", "10", True),
        ("10", "9", False),
        ("10", "10", False),
        ("x9", "x10", True),
        ("x10", "x9", True),  # opaque: the order within a watch is all there is
        ("x9", "x9", False),
        ("9", "x", True),
        ("x", "9", True),
        ("9", "", False),
        ("x", "", False),
    ],
)
def test_which_versions_are_newer(known: str, version: str, is_newer: bool) -> None:
    mirror: Mirror[Thing] = Mirror()
    mirror.replace([], known)
    assert mirror.bookmark(version) is is_newer
    assert mirror.version == (version if is_newer else known)


def test_an_old_event_does_not_bring_back_what_was_deleted() -> None:
    mirror: Mirror[Thing] = Mirror()
    mirror.replace([], "5")
    mirror.put(thing("a", 6))
    mirror.delete(Meta("a", "7"))
    assert mirror.put(thing("a", 6)) is None
    assert mirror.objects == {}


def test_the_deletion_of_what_is_not_known_moves_the_version_on() -> None:
    mirror: Mirror[Thing] = Mirror()
    mirror.replace([], "5")
    assert mirror.delete(Meta("a", "7")) is None
    assert mirror.version == "7"


def test_a_list_wins_also_where_versions_have_gone_back() -> None:
    mirror: Mirror[Thing] = Mirror()
    mirror.replace([thing("a", 900)], "1000")
    a = thing("a", 40)
    mirror.replace([a], "50")
    assert mirror.version == "50"
    assert mirror.put(thing("a", 51)) is not None


def test_objects_cannot_be_changed_from_outside() -> None:
    mirror: Mirror[Thing] = Mirror()
    with pytest.raises(TypeError):
        mirror.objects[Key("ns", "a")] = thing("a", 1)  # type: ignore[index]
