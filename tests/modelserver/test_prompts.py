import json

import pytest

from epp.modelserver.answers import ChatAnswer, CompletionAnswer, block_hashes
from epp.modelserver.engine import EngineOptions
from epp.modelserver.errors import ApiError
from epp.modelserver.options import ModelServerOptions
from epp.modelserver.prompts import Generation, parse_chat, parse_completion

OPTIONS = ModelServerOptions()


def completion(**fields: object) -> Generation:
    body = json.dumps({"model": "m", "prompt": "x", **fields}).encode()
    return parse_completion(body, OPTIONS)


def chat(messages: object, **fields: object) -> Generation:
    return parse_chat(json.dumps({"model": "m", "messages": messages, **fields}).encode(), OPTIONS)


@pytest.mark.parametrize(
    ("prompt", "tokens"),
    [("", 1), ("a", 1), ("abcd", 1), ("abcde", 2), (["abcde"], 2), ([], 1), ([5, 6, 2**32 - 1], 3)],
)
def test_four_bytes_of_a_prompt_are_a_token(prompt: object, tokens: int) -> None:
    assert completion(prompt=prompt).prompt_tokens == tokens


def test_all_text_of_a_chat_counts() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:"}}
    parts = [{"type": "text", "text": "1234"}, image, {"type": "text", "text": "56789"}]
    messages = [
        {"role": "system", "content": "12345678"},
        {"role": "user", "content": parts},
        {"role": "assistant", "content": None, "tool_calls": []},
    ]
    # One token per message and one for the answer to come, beside 2 and 3 of text.
    assert chat(messages).prompt_tokens == 4 + 2 + 3


def test_an_answer_that_names_no_length_stops_by_itself() -> None:
    assert completion().output_tokens == 64
    assert completion().finish_reason == "stop"
    assert completion(max_tokens=5).finish_reason == "length"
    assert completion(max_tokens=5).output_tokens == 5
    assert chat([{"role": "user"}], max_completion_tokens=7).output_tokens == 7


def test_nulls_are_as_good_as_nothing() -> None:
    generation = completion(
        max_tokens=None, stream=None, stream_options=None, n=None, cache_salt=None
    )
    assert not generation.stream
    assert not generation.include_usage


@pytest.mark.parametrize(
    ("fields", "status", "why"),
    [
        ({"model": 5}, 400, r"Expected `str`, got `int` - at `\$.model`"),
        ({"max_tokens": 0}, 400, r"`\$.max_tokens`"),
        ({"prompt": {"a": 1}}, 400, r"`\$.prompt`"),
        ({"prompt": ["a", "b"]}, 400, "one prompt per request"),
        ({"n": 2}, 400, "one choice per request"),
        ({"max_tokens": 70_000}, 400, "maximum context length is 65536 tokens"),
    ],
)
def test_what_cannot_be_served_is_refused(fields: dict[str, object], status: int, why: str) -> None:
    with pytest.raises(ApiError, match=why) as caught:
        completion(**fields)
    assert caught.value.status == status


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"model":"m"}', b'{"prompt":"\xff"}', b"[" * 100_000]
)
def test_what_is_no_request_is_refused(body: bytes) -> None:
    for parse in (parse_completion, parse_chat):
        with pytest.raises(ApiError) as caught:
            parse(body, OPTIONS)
        assert caught.value.status == 400


def test_deep_nesting_in_fields_that_do_not_matter_is_skipped() -> None:
    body = b'{"model":"m","prompt":"x","z":' + b"[" * 100 + b"]" * 100 + b"}"
    assert parse_completion(body, OPTIONS).prompt_tokens == 1


def test_only_listed_models_and_adapters_are_served() -> None:
    options = ModelServerOptions(models=("base",), loras=("fine",))
    ask = '{{"model":"{}","prompt":"x"}}'.format
    assert parse_completion(ask("base").encode(), options).adapter is None
    assert parse_completion(ask("fine").encode(), options).adapter == "fine"
    with pytest.raises(ApiError, match="The model `other` does not exist") as caught:
        parse_completion(ask("other").encode(), options)
    assert caught.value.status == 404
    assert json.loads(caught.value.body())["error"]["code"] == "model_not_found"


def test_the_text_depends_on_model_and_prompt_alone() -> None:
    streamed = CompletionAnswer(completion(stream=True), b"one body")
    whole = CompletionAnswer(completion(max_tokens=64), b"another")
    assert streamed.output == whole.output
    assert CompletionAnswer(completion(prompt="y"), b"").output != whole.output
    assert CompletionAnswer(completion(model="n"), b"").output != whole.output


def test_a_long_answer_has_all_its_tokens() -> None:
    answer = CompletionAnswer(completion(max_tokens=1000), b"")
    assert len(answer.output) == 4000


def test_the_next_turn_of_a_chat_begins_with_the_blocks_of_the_last() -> None:
    first = [{"role": "user", "content": "What is the longest river, and where does it begin?"}]
    turn = chat(first, max_tokens=100)
    answer = ChatAnswer(turn, b"")
    again = {"role": "user", "content": "And the second longest?"}
    reply = {"role": "assistant", "content": answer.output.decode()}
    next_turn = chat([*first, reply, again])
    before = block_hashes(turn, answer.output, 16)
    after = block_hashes(next_turn, b"", 16)
    assert len(before) == (turn.prompt_tokens + 100) // 16
    assert after[: len(before)] == before


@pytest.mark.parametrize("field", [{"cache_salt": "s"}, {"model": "fine"}])
def test_salts_and_adapters_share_no_blocks(field: dict[str, str]) -> None:
    options = ModelServerOptions(loras=("fine",), engine=EngineOptions())
    prompt = "x" * 400
    chains = []
    for fields in ({}, field):
        body = json.dumps({"model": "m", "prompt": prompt, **fields}).encode()
        chains.append(set(block_hashes(parse_completion(body, options), b"", 16)))
    assert len(chains[0]) == len(chains[1]) == 6
    assert not chains[0] & chains[1]
