"""Field blocks and field sections (RFC 7541): the `hpack` package, spared what it did before.

A proxy opens each of its streams with nearly the same block, and the package needs 25 µs for it. So
two memories stand in front of it, each holding only what cannot have changed its meaning:

* whole blocks, as long as the dynamic table stays as it is: every block that changes the table
  empties this memory;
* single field representations that have nothing to do with the dynamic table: forever.

What is in neither is decoded by the package, which also keeps the table. What this side sends never
uses a dynamic table, so that a block is the same bytes on every connection.
"""

from collections.abc import Iterable
from typing import Any, Final, TypeAlias

import msgspec
from hpack import Decoder, Encoder
from hpack.exceptions import HPACKDecodingError, HPACKError

__all__ = [
    "TABLE_SIZE_ZERO",
    "CompressionFault",
    "Field",
    "FieldDecoder",
    "FieldSection",
    "SectionTooLarge",
    "encode_block",
]

Field: TypeAlias = tuple[bytes, bytes]

TABLE_SIZE_ZERO: Final = b"\x20"
"""Starts the first block that is sent on a connection: the dynamic table is not used."""

_FIELD_OVERHEAD_BYTES: Final = 32
_STATIC_TABLE_LENGTH: Final = 61
_MAX_SECTIONS: Final = 64
_MAX_FIELDS: Final = 128
_MAX_REMEMBERED_BYTES: Final = 512
_MAX_INTEGER_SHIFT: Final = 28
_MAX_SIZE_UPDATES: Final = 16
_UNLIMITED: Final = 1 << 32
_SIZE_UPDATES: Final = frozenset(bytes((first,)) for first in range(0x20, 0x40))

_encoder: Final = Encoder()
_encoder.header_table_size = 0
_encoder.encode([])  # takes the announcement of the size out of the blocks


class CompressionFault(Exception):
    """The block is no valid HPACK: the connection's compression state is lost."""


class SectionTooLarge(Exception):
    """The section is larger than the decoder goes on to decode: the state is lost too."""


class FieldSection(msgspec.Struct):
    """The fields of one block in order, and their size as RFC 9113 6.5.2 counts it.

    ``meaning`` is for whoever reads the section: a repeated block gives the same section again, and
    what was made of it once need not be made again.
    """

    fields: tuple[Field, ...]
    size_bytes: int
    meaning: Any = None


def encode_block(fields: Iterable[tuple[str, str]]) -> bytes:
    """Return a field block that means the same whatever was sent before."""
    return _encoder.encode(fields, huffman=False)


class FieldDecoder:
    """The decoding half of one connection's HPACK state.

    The dynamic table has its initial size limit of 4,096 bytes. A section of more than
    ``max_section_bytes`` is not decoded to its end.
    """

    __slots__ = ("_decoder", "_fields", "_max_section_bytes", "_sections")

    def __init__(self, max_section_bytes: int):
        self._max_section_bytes = max_section_bytes
        # It sees one field at a time: the limit on all of them is kept here.
        self._decoder = Decoder(max_header_list_size=_UNLIMITED)
        self._sections: dict[bytes, FieldSection] = {}
        self._fields: dict[bytes, Field] = {}

    def decode(self, block: bytes) -> FieldSection:
        """Return the section of a whole block. Raises CompressionFault and SectionTooLarge; after
        either the decoder must not be used again."""
        section = self._sections.get(block)
        if section is not None:
            return section
        try:
            section, was_table_changed = self._decode(block)
        except (HPACKError, IndexError) as error:
            raise CompressionFault(str(error)) from error
        sections = self._sections
        if was_table_changed or len(sections) >= _MAX_SECTIONS:
            sections.clear()
        if not was_table_changed and len(block) <= _MAX_REMEMBERED_BYTES:
            sections[block] = section
        return section

    def _decode(self, block: bytes) -> tuple[FieldSection, bool]:
        """Decode field by field; say too whether the dynamic table has changed."""
        fields: list[Field] = []
        size_bytes = 0
        position = self._change_table_size(block)
        was_table_changed = position > 0
        while position < len(block):
            stop = _field_end(block, position)
            representation = block[position:stop]
            position = stop
            field = self._fields.get(representation)
            if field is None:
                was_table_changed |= representation[0] & 0xC0 == 0x40
                field = self._decode_field(representation)
            fields.append(field)
            size_bytes += len(field[0]) + len(field[1]) + _FIELD_OVERHEAD_BYTES
            if size_bytes > self._max_section_bytes:
                raise SectionTooLarge(f"more than {self._max_section_bytes} bytes of fields")
        return FieldSection(tuple(fields), size_bytes), was_table_changed

    def _change_table_size(self, block: bytes) -> int:
        """Apply the size updates that a block starts with; return where its fields start."""
        position = 0
        for _ in range(_MAX_SIZE_UPDATES):
            if block[position : position + 1] not in _SIZE_UPDATES:
                break
            stop = _field_end(block, position)
            self._decoder.decode(block[position:stop], raw=True)
            position = stop
        return position

    def _decode_field(self, representation: bytes) -> Field:
        """Decode one field that is in no memory, and remember it if it may be."""
        first = representation[0]
        if first & 0xE0 == 0x20:
            raise HPACKDecodingError("a size update where none may be, or too many of them")
        is_indexed = first & 0x80
        mask = 0x7F if is_indexed else 0x3F if first & 0x40 else 0x0F
        index = _integer(representation, 0, mask)[0]
        field: Field
        if is_indexed:
            field = self._decoder.header_table.get_by_index(index)
        else:
            ((name, value),) = self._decoder.decode(representation, raw=True)
            field = (name, value)
        is_stateless = index <= _STATIC_TABLE_LENGTH and (is_indexed or not first & 0x40)
        if is_stateless and len(representation) <= _MAX_REMEMBERED_BYTES:
            if len(self._fields) >= _MAX_FIELDS:
                self._fields.clear()
            self._fields[representation] = field
        return field


def _field_end(block: bytes, position: int) -> int:
    """Return where the representation that starts here ends (RFC 7541, section 6).

    Raises IndexError when it ends in the middle of an integer; a string that is cut short is left
    to the package to refuse.
    """
    first = block[position]
    if first & 0x80:
        return position + 1 if first != 0xFF else _integer(block, position, 0x7F)[1]
    if first & 0xE0 == 0x20:
        return _integer(block, position, 0x1F)[1]
    mask = 0x3F if first & 0x40 else 0x0F
    name_index, position = _integer(block, position, mask)
    if not name_index:
        length, position = _integer(block, position, 0x7F)
        position += length
    length, position = _integer(block, position, 0x7F)
    return position + length


def _integer(block: bytes, position: int, mask: int) -> tuple[int, int]:
    """Return an integer (RFC 7541, section 5.1) and where it ends."""
    value = block[position] & mask
    position += 1
    if value < mask:
        return value, position
    shift = 0
    while True:
        byte = block[position]
        position += 1
        value += (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > _MAX_INTEGER_SHIFT:
            raise HPACKDecodingError("an integer of more than 32 bits")
