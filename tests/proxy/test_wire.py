"""The wire messages against Envoy's full definitions, as another protobuf library knows them."""

import datetime
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import betterproto2
import envoy_data_plane.envoy.config.core.v3 as full_core
import envoy_data_plane.envoy.extensions.filters.http.ext_proc.v3 as full_filter
import envoy_data_plane.envoy.service.ext_proc.v3 as full
import envoy_data_plane.google.protobuf as full_protobuf
import pytest
from envoy_data_plane.envoy.type.v3 import StatusCode
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct
from hypothesis import given, settings
from hypothesis import strategies as st

from epp.proxy.wire import core_pb2, ext_proc_pb2, http_status_pb2, processing_mode_pb2

_PROJECT = Path(__file__).parents[2]
_FILES = (core_pb2, ext_proc_pb2, http_status_pb2, processing_mode_pb2)
_ROOTS = [
    (ext_proc_pb2.ProcessingRequest, full.ProcessingRequest),
    (ext_proc_pb2.ProcessingResponse, full.ProcessingResponse),
]
_NAMES = {value: name for name, value in vars(FieldDescriptor).items() if name.startswith("TYPE_")}
# What may be declared differently here, because it is the same on the wire.
_SAME_ON_THE_WIRE = {("bytes", "string"), ("int32", "enum")}

# ---- the declarations ----


def is_map(field: FieldDescriptor) -> bool:
    return bool(field.message_type and field.message_type.GetOptions().map_entry)


def is_google(field: FieldDescriptor) -> bool:
    """Whether the field holds a message of protobuf itself, which nobody defines twice."""
    return bool(field.message_type.file.package == "google.protobuf")


def pairs(
    descriptor: Descriptor, theirs: type[betterproto2.Message]
) -> Iterator[tuple[Descriptor, type[betterproto2.Message]]]:
    """Every message of ours below one root, with Envoy's class in the same place."""
    yield descriptor, theirs
    for field in descriptor.fields:
        if field.message_type and not is_map(field) and not is_google(field):
            yield from pairs(field.message_type, theirs._betterproto.cls_by_field[field.name])


_PAIRS = {
    ours.full_name: (ours, theirs)
    for root, full_root in _ROOTS
    for ours, theirs in pairs(root.DESCRIPTOR, full_root)
}


def test_every_declared_message_is_in_use() -> None:
    declared = {
        message.full_name
        for module in _FILES
        for message in module.DESCRIPTOR.message_types_by_name.values()
        if message.fields
    }
    assert declared == set(_PAIRS)


@pytest.mark.parametrize("name", _PAIRS)
def test_the_message_has_the_name_it_has_for_envoy(name: str) -> None:
    _, theirs = _PAIRS[name]
    package = theirs.__module__.removeprefix("envoy_data_plane.")
    assert name == f"{package}.{theirs.__name__}"


@pytest.mark.parametrize("name", _PAIRS)
def test_every_field_is_the_one_that_envoy_has(name: str) -> None:
    ours, theirs = _PAIRS[name]
    for field in ours.fields:
        meta = theirs._betterproto.meta_by_field_name[field.name]
        kind = _NAMES[field.type].removeprefix("TYPE_").lower()
        assert field.number == meta.number, field.full_name
        assert is_map(field) == (meta.proto_type == "map"), field.full_name
        assert field.is_repeated == (meta.repeated or is_map(field)), field.full_name
        group = field.containing_oneof.name if field.containing_oneof else None
        assert group == meta.group, field.full_name
        if is_map(field):
            assert [part.proto_type for part in meta.map_meta] == ["string", "message"]
            key, value = field.message_type.fields
            assert key.type == FieldDescriptor.TYPE_STRING
            assert value.message_type is Struct.DESCRIPTOR
        elif kind != meta.proto_type:
            assert (kind, meta.proto_type) in _SAME_ON_THE_WIRE, field.full_name


@pytest.mark.parametrize("name", _PAIRS)
def test_every_enum_is_the_one_that_envoy_has(name: str) -> None:
    ours, theirs = _PAIRS[name]
    for field in ours.fields:
        if field.enum_type:
            known = theirs._betterproto.cls_by_field[field.name]
            assert {v.name: v.number for v in field.enum_type.values} == {
                member.name: member.value for member in known
            }


def test_the_service_is_envoys() -> None:
    (service,) = ext_proc_pb2.DESCRIPTOR.services_by_name.values()
    (method,) = service.methods
    path = f"/{service.full_name}/{method.name}"
    assert path in full.ExternalProcessorBase().__mapping__()


# ---- the values ----

_text = st.text(max_size=5)
_scalars = st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | _text
_json = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_text, inner, max_size=2),
    max_leaves=4,
)
_objects = st.dictionaries(_text, _json, min_size=1, max_size=2)


def scalar(field: FieldDescriptor, theirs: type[betterproto2.Message]) -> st.SearchStrategy[Any]:
    """Values of one field that both definitions can hold."""
    meta = theirs._betterproto.meta_by_field_name[field.name]
    if meta.proto_type == "string":
        text = st.text(max_size=20)
        return text if field.type == FieldDescriptor.TYPE_STRING else text.map(str.encode)
    if meta.proto_type == "enum":
        enum = theirs._betterproto.cls_by_field[field.name]
        return st.sampled_from([member.value for member in enum])
    return {"bytes": st.binary(max_size=20), "bool": st.booleans()}[meta.proto_type]


def fill(draw: st.DrawFn, ours: Message, theirs: type[betterproto2.Message]) -> None:
    """Set every field of a message, and one of each group of which only one may be set."""
    descriptor = ours.DESCRIPTOR
    chosen = {draw(st.sampled_from(list(group.fields))).name for group in descriptor.oneofs}
    for field in descriptor.fields:
        if field.containing_oneof and field.name not in chosen:
            continue
        value = getattr(ours, field.name)
        if isinstance(value, Struct):
            value.update(draw(_objects))
        elif isinstance(value, Duration):
            value.FromTimedelta(datetime.timedelta(microseconds=draw(st.integers(1, 10**12))))
        elif isinstance(value, Message):
            value.SetInParent()
            fill(draw, value, theirs._betterproto.cls_by_field[field.name])
        elif is_map(field):
            for key, members in draw(
                st.dictionaries(st.text(max_size=5), _objects, max_size=2)
            ).items():
                value[key].update(members)
        elif field.is_repeated and field.message_type:
            for _ in range(draw(st.integers(1, 2))):
                fill(draw, value.add(), theirs._betterproto.cls_by_field[field.name])
        elif field.is_repeated:
            value.extend(draw(st.lists(scalar(field, theirs), min_size=1, max_size=3)))
        else:
            setattr(ours, field.name, draw(scalar(field, theirs)))


def plain_members(struct: Any) -> dict[str, Any]:
    """What a google.protobuf.Struct of either library is in plain Python."""
    return {key: plain_json(member) for key, member in struct.fields.items()}


def plain_json(value: Any) -> Any:
    """What a google.protobuf.Value of either library is in plain Python."""
    if isinstance(value, betterproto2.Message):
        kind, member = betterproto2.which_one_of(value, "kind")
    else:
        kind = value.WhichOneof("kind")
        member = getattr(value, kind)
    if kind == "null_value":
        return None
    if kind == "struct_value":
        return plain_members(member)
    if kind == "list_value":
        return [plain_json(inner) for inner in member.values]
    return member


def same(ours: Any, theirs: Any) -> bool:
    """Whether a value and its counterpart in Envoy's full definitions are the same."""
    if isinstance(ours, Struct):
        return plain_members(ours) == plain_members(theirs)
    if isinstance(ours, Duration):
        return bool(ours.ToTimedelta() == theirs)
    if isinstance(ours, Message):
        assert not theirs._unknown_fields
        return all(same(value, getattr(theirs, field.name)) for field, value in ours.ListFields())
    if isinstance(theirs, dict):
        return set(ours) == set(theirs) and all(same(ours[key], theirs[key]) for key in theirs)
    if isinstance(theirs, list):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    if isinstance(ours, bytes) and isinstance(theirs, str):
        return ours == theirs.encode()
    return bool(ours == theirs)


@pytest.mark.parametrize(("ours", "theirs"), _ROOTS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_message_means_the_same_to_both(
    ours: type[Message], theirs: type[betterproto2.Message], data: st.DataObject
) -> None:
    message = ours()
    fill(data.draw, message, theirs)
    read = theirs.parse(message.SerializeToString())
    assert same(message, read)
    assert ours.FromString(bytes(read)) == message


# ---- what a proxy may send beyond that ----


def test_fields_that_are_not_in_use_are_skipped() -> None:
    sent = full.ProcessingRequest(
        request_body=full.HttpBody(body=b"x", end_of_stream=True, grpc_message_compressed=True),
        metadata_context=full_core.Metadata(
            typed_filter_metadata={"a": full_protobuf.Any(type_url="b", value=b"c")}
        ),
    )
    read = ext_proc_pb2.ProcessingRequest.FromString(bytes(sent))
    assert read.WhichOneof("request") == "request_body"
    assert (read.request_body.body, read.request_body.end_of_stream) == (b"x", True)


def test_header_text_need_not_be_utf_8() -> None:
    headers = core_pb2.HeaderMap(headers=[core_pb2.HeaderValue(key=b"x-\xff", value=b"\xfe\x80")])
    (read,) = core_pb2.HeaderMap.FromString(headers.SerializeToString()).headers
    assert (read.key, read.value) == (b"x-\xff", b"\xfe\x80")


def test_body_modes_have_envoys_numbers() -> None:
    duplex = full_filter.ProcessingModeBodySendMode.FULL_DUPLEX_STREAMED
    assert int(duplex) == processing_mode_pb2.ProcessingMode.FULL_DUPLEX_STREAMED


def test_an_immediate_response_has_the_status_that_envoy_knows() -> None:
    sent = ext_proc_pb2.ImmediateResponse(status=http_status_pb2.HttpStatus(code=429))
    read = full.ImmediateResponse.parse(sent.SerializeToString())
    assert read.status is not None
    assert read.status.code is StatusCode.TooManyRequests


# ---- the generated code ----


def without_versions(text: str) -> str:
    """Generated code without the versions of the compiler, which differ between machines."""
    text = re.sub(r"# Protobuf Python Version: .*", "", text)
    return re.sub(r"(Domain\.PUBLIC,\s+)\d+,\s+\d+,\s+\d+,\s+'[^']*'", r"\1", text)


def test_the_generated_code_is_that_of_the_definitions(tmp_path: Path) -> None:
    generate = [sys.executable, str(_PROJECT / "protos/generate.py"), str(tmp_path)]
    subprocess.run(generate, check=True, env={**os.environ, "PYTHONWARNINGS": ""})
    committed = _PROJECT / "epp/proxy/wire"
    made = {path.name: path.read_text() for path in (tmp_path / "epp/proxy/wire").iterdir()}
    kept = {path.name: path.read_text() for path in committed.glob("*_pb2.py*")}
    assert {name: without_versions(text) for name, text in made.items()} == {
        name: without_versions(text) for name, text in kept.items()
    }


def test_the_oldest_runtime_allowed_can_load_the_generated_code() -> None:
    project = tomllib.loads((_PROJECT / "pyproject.toml").read_text())["project"]
    code = (_PROJECT / "epp/proxy/wire/ext_proc_pb2.py").read_text()
    compiler = re.search(r"# Protobuf Python Version: ([\d.]+)", code)
    assert compiler is not None
    assert f"protobuf>={compiler[1]}" in project["dependencies"]
