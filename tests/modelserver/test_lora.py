from epp.modelserver.lora import LoraSlots


def test_the_base_model_needs_no_slot() -> None:
    slots = LoraSlots(0)
    assert slots.has_room_for(None)
    assert not slots.take(None)
    slots.give_back(None)
    assert not slots.has_room_for("a")


def test_a_slot_is_shared_by_the_sequences_of_one_adapter() -> None:
    slots = LoraSlots(1)
    assert slots.take("a")
    assert not slots.take("a")
    slots.give_back("a")
    assert not slots.has_room_for("b")
    slots.give_back("a")
    assert slots.has_room_for("b")
    assert slots.in_use() == []


def test_the_adapter_that_was_idle_longest_is_replaced() -> None:
    slots = LoraSlots(2)
    for adapter in ("a", "b", "a"):
        slots.take(adapter)
        slots.give_back(adapter)
    assert slots.take("c")
    assert not slots.take("a")
    assert slots.in_use() == ["a", "c"]
    slots.give_back("a")
    assert slots.take("b")
