"""Lists and events, object by object."""

import json

import msgspec
import pytest

from epp.discovery.kubernetes.watch.decoding import ObjectDecoder, Unreadable
from tests.discovery.kubernetes.following import Thing
from tests.discovery.kubernetes.scripted import thing


def test_a_long_list_lets_others_have_their_turn() -> None:
    items = [thing(f"t{number}", number) for number in range(501)]
    body = json.dumps({"metadata": {"resourceVersion": "9"}, "items": items}).encode()
    decoding = ObjectDecoder(Thing).decode_list(body)
    turns = 0
    while True:
        try:
            decoding.send(None)
        except StopIteration as end:
            metadata, decoded = end.value
            break
        turns += 1
    assert turns == 2
    assert (metadata.resource_version, metadata.next_page) == ("9", None)
    assert [item.metadata.name for item in decoded] == [f"t{number}" for number in range(501)]


def test_an_object_that_does_not_decode_is_still_known_by_its_name() -> None:
    raw = msgspec.Raw(json.dumps(thing("a", 4, "bad")).encode())
    item = ObjectDecoder(Thing).decode(raw)
    assert isinstance(item, Unreadable)
    assert (item.key, item.metadata.resource_version) == (("ns", "a"), "4")
    assert item.reason == "Expected `int`, got `str` - at `$.value`"


def test_what_is_no_object_of_the_api_is_an_error() -> None:
    with pytest.raises(msgspec.ValidationError):
        ObjectDecoder(Thing).decode(msgspec.Raw(b"7"))
