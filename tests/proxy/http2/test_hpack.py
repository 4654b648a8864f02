"""HPACK (RFC 7541): its own examples, the package as an oracle, and the two memories."""

import pytest
from hpack import Decoder, Encoder
from hypothesis import given
from hypothesis import strategies as st

from epp.proxy.http2 import hpack_cache
from epp.proxy.http2.hpack_cache import (
    CompressionFault,
    Field,
    FieldDecoder,
    SectionTooLarge,
    encode_block,
)

LIMIT = 1 << 16


def decode(decoder: FieldDecoder, block: bytes | str) -> list[Field]:
    return list(decoder.decode(bytes.fromhex(block) if isinstance(block, str) else block).fields)


# Appendix C. What is decoded, and the dynamic table after it, first entry first.

GET = [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/")]
AUTHORITY = (b":authority", b"www.example.com")
NO_CACHE = (b"cache-control", b"no-cache")
CUSTOM = (b"custom-key", b"custom-value")
SECURE = [(b":method", b"GET"), (b":scheme", b"https"), (b":path", b"/index.html")]

SINGLE_FIELDS = {
    "rfc7541_c_2_1": (
        "400a637573746f6d2d6b65790d637573746f6d2d686561646572",
        (b"custom-key", b"custom-header"),
        True,
    ),
    "rfc7541_c_2_2": ("040c2f73616d706c652f70617468", (b":path", b"/sample/path"), False),
    "rfc7541_c_2_3": ("100870617373776f726406736563726574", (b"password", b"secret"), False),
    "rfc7541_c_2_4": ("82", (b":method", b"GET"), False),
}

REQUESTS = {
    "rfc7541_c_3": (
        "828684410f7777772e6578616d706c652e636f6d",
        "828684be58086e6f2d6361636865",
        "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
    ),
    "rfc7541_c_4": (
        "828684418cf1e3c2e5f23a6ba0ab90f4ff",
        "828684be5886a8eb10649cbf",
        "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
    ),
}

RESPONSES = {
    "rfc7541_c_5": (
        "4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120474d54"
        "6e1768747470733a2f2f7777772e6578616d706c652e636f6d",
        "4803333037c1c0bf",
        "88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a69707738666f6f"
        "3d4153444a4b48514b425a584f5157454f50495541585157454f49553b206d61782d6167653d333630303b2076"
        "657273696f6e3d31",
    ),
    "rfc7541_c_6": (
        "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad1718"
        "63c78f0b97c8e9ae82ae43d3",
        "4883640effc1c0bf",
        "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335"
        "dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
    ),
}


@pytest.mark.parametrize(
    ("block", "field", "is_indexed"), SINGLE_FIELDS.values(), ids=SINGLE_FIELDS
)
def test_rfc7541_c_2_single_fields(block: str, field: Field, is_indexed: bool) -> None:
    decoder = FieldDecoder(LIMIT)
    assert decode(decoder, block) == [field]
    assert decode(decoder, block) == [field]
    fresh = FieldDecoder(LIMIT)
    decode(fresh, block)
    if is_indexed:
        assert decode(fresh, "be") == [field]
    else:
        with pytest.raises(CompressionFault):
            decode(fresh, "be")


@pytest.mark.parametrize("blocks", REQUESTS.values(), ids=REQUESTS)
def test_rfc7541_c_3_and_c_4_requests(blocks: tuple[str, ...]) -> None:
    decoder = FieldDecoder(LIMIT)
    first, second, third = (decode(decoder, block) for block in blocks)
    assert first == [*GET, AUTHORITY]
    assert second == [*GET, AUTHORITY, NO_CACHE]
    assert third == [*SECURE, AUTHORITY, CUSTOM]
    assert decode(decoder, "bebfc0") == [CUSTOM, NO_CACHE, AUTHORITY]
    with pytest.raises(CompressionFault):
        decode(decoder, "c1")


@pytest.mark.parametrize("blocks", RESPONSES.values(), ids=RESPONSES)
def test_rfc7541_c_5_and_c_6_responses_with_a_table_of_256_bytes(blocks: tuple[str, ...]) -> None:
    decoder = FieldDecoder(LIMIT)
    decode(decoder, b"\x3f\xe1\x01")  # table size 256
    location = (b"location", b"https://www.example.com")
    private = (b"cache-control", b"private")
    date = (b"date", b"Mon, 21 Oct 2013 20:13:21 GMT")
    later = (b"date", b"Mon, 21 Oct 2013 20:13:22 GMT")
    gzip = (b"content-encoding", b"gzip")
    cookie = (b"set-cookie", b"foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1")
    first, second, third = (decode(decoder, block) for block in blocks)
    assert first == [(b":status", b"302"), private, date, location]
    assert second == [(b":status", b"307"), private, date, location]
    assert third == [(b":status", b"200"), private, later, location, gzip, cookie]
    assert decode(decoder, "bebfc0") == [cookie, gzip, later]
    with pytest.raises(CompressionFault):
        decode(decoder, "c1")


# Errors


@pytest.mark.parametrize(
    "block",
    [
        "80",  # index 0
        "be",  # nothing in the dynamic table
        "ff00",  # index 127
        "7f00" + "0161",  # name index 63
        "0f8001" + "0161",  # name index 143
        "ff",  # an integer that is cut off
        "ff80",
        "ffffffffffffff01",  # one that is too long
        "00",  # a name that is missing
        "000161",  # a value that is missing
        "00016103",  # and one that is cut off
        "00056162",
        "0082ffff0161",  # padding longer than 7 bits
        "008100" + "0161",  # padding of zeros
        "0084ffffffff" + "0161",  # the end-of-string symbol
        "8220",  # a size update after a field
        "3fe21f",  # 4,097 bytes
        "20" * 17,  # needless updates, each of which costs time
        "3f",
    ],
)
def test_invalid_block(block: str) -> None:
    with pytest.raises(CompressionFault):
        decode(FieldDecoder(LIMIT), block)


def test_rfc7541_4_2_size_updates_at_the_start_of_a_block() -> None:
    decoder = FieldDecoder(LIMIT)
    decode(decoder, SINGLE_FIELDS["rfc7541_c_2_1"][0])
    assert decode(decoder, "20" * 15 + "3fe11f82") == [(b":method", b"GET")]
    with pytest.raises(CompressionFault):
        decode(decoder, "be")  # the first update has emptied the table


def test_rfc7541_4_4_entry_larger_than_the_table_empties_it() -> None:
    decoder = FieldDecoder(LIMIT)
    decode(decoder, "3f01")  # 32 bytes
    assert decode(decoder, SINGLE_FIELDS["rfc7541_c_2_1"][0]) == [(b"custom-key", b"custom-header")]
    with pytest.raises(CompressionFault):
        decode(decoder, "be")


def test_section_that_grows_too_large() -> None:
    decoder = FieldDecoder(5_000)
    decode(decoder, b"\x40\x01a\x7f\xa1\x1e" + b"v" * 4_000)
    assert decoder.decode(b"\xbe").size_bytes == 4_033
    with pytest.raises(SectionTooLarge):
        decoder.decode(b"\xbe" * 10_000)  # of 40 MB


def test_size_is_counted_as_rfc9113_6_5_2_says() -> None:
    block = Encoder().encode([("abc", "defg"), (":method", "GET")])
    assert FieldDecoder(LIMIT).decode(block).size_bytes == 3 + 4 + 32 + 7 + 3 + 32


# The memories


def test_a_repeated_block_gives_the_same_section() -> None:
    decoder = FieldDecoder(LIMIT)
    encoder = Encoder()
    fields = [(":method", "POST"), ("x-a", "1")]
    first, second, third = (decoder.decode(encoder.encode(fields)) for _ in range(3))
    assert first.fields == second.fields
    assert second is third


def test_a_block_is_forgotten_when_the_dynamic_table_changes() -> None:
    decoder = FieldDecoder(LIMIT)
    decode(decoder, b"\x40\x01a\x011")
    assert decode(decoder, b"\xbe") == [(b"a", b"1")]
    decode(decoder, b"\x40\x01a\x012")
    assert decode(decoder, b"\xbe") == [(b"a", b"2")]
    decode(decoder, b"\x20")
    with pytest.raises(CompressionFault):
        decode(decoder, b"\xbe")


def test_a_literal_whose_name_is_in_the_dynamic_table_is_not_remembered() -> None:
    decoder = FieldDecoder(LIMIT)
    literal = b"\x0f\x2f\x01x"  # name index 62
    decode(decoder, b"\x40\x01a\x011")
    assert decode(decoder, literal) == [(b"a", b"x")]
    decode(decoder, b"\x40\x01b\x011")
    assert decode(decoder, literal) == [(b"b", b"x")]


def test_the_memories_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hpack_cache, "_MAX_SECTIONS", 5)
    monkeypatch.setattr(hpack_cache, "_MAX_FIELDS", 7)
    decoder = FieldDecoder(LIMIT)
    for number in range(100):
        name = b"%03d" % number
        assert decode(decoder, b"\x00\x03" + name + b"\x01v") == [(name, b"v")]
        assert len(decoder._sections) <= 5
        assert len(decoder._fields) <= 7
    long = b"\x00\x7f\xf9\x07" + b"n" * 1_144
    assert decode(decoder, long + b"\x01v") == [(b"n" * 1_144, b"v")]
    assert all(len(block) < 1_000 for block in [*decoder._sections, *decoder._fields])


names = st.sampled_from([":method", ":path", "accept", "x-a", "x-b", "x-longer-name", "cookie"])
values = st.sampled_from(["", "GET", "/", "1", "2", "a value", "v" * 200, "\\" * 90])
sections = st.lists(st.tuples(names, values, st.booleans()), max_size=8)
steps = st.lists(
    st.one_of(sections, st.sampled_from([0, 50, 100, 400, 4_096])), min_size=1, max_size=30
)


@given(steps, st.booleans())
def test_every_section_is_what_the_package_decodes(
    script: list[list[tuple[str, str, bool]] | int], huffman: bool
) -> None:
    encoder, oracle, decoder = Encoder(), Decoder(), FieldDecoder(LIMIT)
    for step in script:
        if isinstance(step, int):
            encoder.header_table_size = step
            continue
        block = encoder.encode(step, huffman=huffman)
        assert decode(decoder, block) == [tuple(pair) for pair in oracle.decode(block, raw=True)]


@given(st.lists(st.binary(max_size=40), max_size=8))
def test_any_bytes_are_decoded_or_refused_as_the_package_does(blocks: list[bytes]) -> None:
    oracle, decoder = Decoder(), FieldDecoder(LIMIT)
    for block in blocks:
        try:
            expected = [tuple(pair) for pair in oracle.decode(block, raw=True)]
        except Exception:
            with pytest.raises(CompressionFault):
                decode(decoder, block)
            return
        assert decode(decoder, block) == expected


# What is sent


def test_blocks_that_are_sent_leave_no_trace_in_the_decoder() -> None:
    first = encode_block([(":status", "200"), ("grpc-status", "0")])
    second = encode_block([(":status", "200"), ("grpc-status", "0")])
    assert first == second
    decoder = Decoder()
    for block in (hpack_cache.TABLE_SIZE_ZERO + first, second):
        decoded = [tuple(pair) for pair in decoder.decode(block, raw=True)]
        assert decoded == [(b":status", b"200"), (b"grpc-status", b"0")]
    assert len(decoder.header_table.dynamic_entries) == 0
