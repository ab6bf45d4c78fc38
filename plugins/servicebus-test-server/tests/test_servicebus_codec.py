"""AMQP values, frames and messages: what is written is read again, and what is malformed is refused."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from azure.servicebus._pyamqp._decode import decode_payload
from hypothesis import given, settings
from hypothesis import strategies as st
from servicebus_test_server.amqp.decoding import MAX_DEPTH, decode, skip
from servicebus_test_server.amqp.encoding import encode
from servicebus_test_server.amqp.values import (
    Array,
    Byte,
    Char,
    CodecError,
    Described,
    Float,
    Int,
    Opaque,
    Short,
    Symbol,
    Timestamp,
    UByte,
    UInt,
    ULong,
    UShort,
    Value,
)
from servicebus_test_server.frames import Frame, FrameError, FrameReader, write_frame
from servicebus_test_server.messages import read_batch, read_message, write_answer
from servicebus_test_server.performatives import Attach, Flow, Open, Transfer, read_performative


def integers(kind: Any, bits: int, signed: bool) -> st.SearchStrategy[Any]:
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    return st.integers(low, high).map(kind)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
SYMBOLS = st.text(st.characters(max_codepoint=127), max_size=300).map(Symbol)
KINDS: list[st.SearchStrategy[Any]] = [
    st.none(),
    st.booleans(),
    integers(UByte, 8, False),
    integers(UShort, 16, False),
    integers(UInt, 32, False),
    integers(ULong, 64, False),
    integers(Byte, 8, True),
    integers(Short, 16, True),
    integers(Int, 32, True),
    integers(int, 64, True),
    integers(Timestamp, 64, True),
    st.floats(allow_nan=False, width=32).map(Float),
    st.floats(allow_nan=False),
    st.characters(exclude_categories=["Cs"]).map(Char),
    st.binary(max_size=300),
    TEXT,
    SYMBOLS,
    st.uuids(),
    st.sampled_from([(0x74, 4), (0x84, 8), (0x94, 16)]).flatmap(
        lambda kind: st.binary(min_size=kind[1], max_size=kind[1]).map(lambda data: Opaque(kind[0], data))
    ),
]
SCALARS = st.one_of(KINDS)
VALUES = st.recursive(
    SCALARS | st.one_of([st.lists(kind, max_size=5).map(Array) for kind in KINDS[:-1]]),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(SCALARS, inner, max_size=5)
        | st.builds(Described, integers(ULong, 64, False) | SYMBOLS, inner)
    ),
    max_leaves=20,
)


def shape(value: Value) -> Any:
    """The value with the types of all its parts, as equality looks over them."""
    if isinstance(value, list):
        return type(value), [shape(each) for each in value]
    if isinstance(value, dict):
        return [(shape(key), shape(each)) for key, each in value.items()]
    if isinstance(value, Described):
        return shape(value.descriptor), shape(value.value)
    return type(value), value


@settings(deadline=None)
@given(VALUES)
def test_a_value_comes_back_with_its_type(value: Any) -> None:
    data = encode(value)
    read, end = decode(data)
    assert shape(read) == shape(value)
    assert end == len(data) == skip(data, 0)


@settings(deadline=None)
@given(VALUES, st.data())
def test_a_value_cut_short_is_refused(value: Any, data: st.DataObject) -> None:
    encoded = encode(value)
    cut = encoded[: data.draw(st.integers(0, len(encoded) - 1))]
    for read in (decode, skip):
        with pytest.raises(CodecError):
            read(cut, 0)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_value_or_refused(data: bytes) -> None:
    readers: list[Callable[[bytes], object]] = [decode, skip_first, read_performative, read_message, read_batch]
    for read in readers:
        with contextlib.suppress(CodecError):
            read(data)


def skip_first(data: bytes) -> int:
    return skip(data, 0)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x3f",
        b"\xd1\x00\x00\x00\x05\x00\x00\x00\x01\x40",  # a map of one
        b"\xd0\xff\xff\xff\xff\x00\x00\x00\x00",
        b"\xf0\x00\x00\x00\x05\xff\xff\xff\xff\x40",  # four billion nulls
        b"\xa1\x02\xff\xff",
        b"\xa3\x01\xe4",
        b"\xc1\x04\x02\x45\x41\x41",  # a map whose key is a list
        b"\x00" * 200,
    ],
)
def test_malformed_values_are_refused(data: bytes) -> None:
    with pytest.raises(CodecError):
        decode(data)


def test_values_that_nest_too_deep_are_refused() -> None:
    data = b"\x45"
    for _ in range(MAX_DEPTH + 1):
        data = b"\xd0" + (len(data) + 4).to_bytes(4, "big") + b"\x00\x00\x00\x01" + data
    with pytest.raises(CodecError, match="deeper"):
        decode(data)


@pytest.mark.parametrize("value", [object(), UInt(-1), Int(1 << 31), Symbol("ä"), Array([1, "a"]), 1 << 63])
def test_values_without_an_encoding_are_refused(value: object) -> None:
    with pytest.raises(CodecError):
        encode(value)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([0, 1]), st.integers(0, 65535), st.binary(max_size=50)), max_size=8), st.data()
)
def test_frames_come_whole_however_they_are_cut(frames: list[tuple[int, int, bytes]], data: st.DataObject) -> None:
    stream = b"".join(write_frame(*frame) for frame in frames)
    reader = FrameReader(512)
    read: list[Frame] = []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        reader.feed(stream[:size])
        stream = stream[size:]
        while (frame := reader.frame()) is not None:
            read.append(frame)
    assert read == frames


@pytest.mark.parametrize(
    "head", ["00000007 02 00 0000", "00000201 02 00 0000", "00000008 01 00 0000", "00000008 03 00 0000"]
)
def test_frames_out_of_bounds_are_refused(head: str) -> None:
    reader = FrameReader(512)
    reader.feed(bytes.fromhex(head))
    with pytest.raises(FrameError):
        reader.frame()


@pytest.mark.parametrize(
    "each",
    [
        Open("me", "host", 512, 7, 1000),
        Attach("link", 3, True, 0, 1, Described(ULong(0x28), ["a"]), None, 0, 10, {Symbol("a"): UInt(1)}),
        Flow(1, 2, 3, 4, 5, 6, 7, True, True),
        Transfer(1, 2, b"tag", 0x80013700, True, True, True),
    ],
)
def test_performatives_come_back(each: Open | Attach | Flow | Transfer) -> None:
    assert read_performative(each.write() + b"payload") == (each, b"payload")


def test_missing_fields_have_their_defaults() -> None:
    assert read_performative(encode(Described(ULong(0x10), ["me"])))[0] == Open("me")
    with pytest.raises(CodecError, match="field 1"):
        read_performative(encode(Described(ULong(0x12), ["link"])))


def section(code: int, value: Any) -> bytes:
    return encode(Described(ULong(code), value))


def test_a_message_keeps_what_belongs_to_its_sender() -> None:
    own = section(0x73, ["id", None, None, "subject"]) + section(0x74, {"n": Int(5)}) + section(0x75, b"body")
    message = read_message(section(0x70, [True, UByte(4), UInt(9000)]) + own)
    assert (message.message_id, message.ttl, message.properties["subject"]) == ("id", 9000, "subject")
    assert message.application_properties == {"n": 5}
    assert message.data() == b"body"
    written = message.write({Symbol("x-opt-sequence-number"): 7}, 2, 9000)
    assert written.endswith(own)
    seen = decode_payload(memoryview(written))
    assert seen.header is not None
    assert (seen.header.delivery_count, seen.header.ttl) == (2, 9000)
    assert seen.message_annotations == {b"x-opt-sequence-number": 7}


def test_a_dead_letter_keeps_the_types_of_its_properties() -> None:
    message = read_message(section(0x74, {"small": Int(5), "name": Symbol("s")}) + section(0x75, b""))
    buried = message.with_application_properties({"DeadLetterReason": "why"})
    again = read_message(buried.write({}, 0, None))
    assert shape(dict(again.application_properties)) == shape(
        {"small": Int(5), "name": Symbol("s"), "DeadLetterReason": "why"}
    )


def test_a_batch_is_read_message_by_message() -> None:
    parts = [section(0x73, [f"m{number}"]) + section(0x75, b"x" * number) for number in range(3)]
    envelope = section(0x73, ["m0"]) + b"".join(section(0x75, part) for part in parts)
    assert [(each.message_id, each.data()) for each in read_batch(envelope)] == [
        ("m0", b""),
        ("m1", b"x"),
        ("m2", b"xx"),
    ]


def test_an_answer_carries_the_id_of_its_request() -> None:
    seen = decode_payload(memoryview(write_answer(ULong(5), {"statusCode": Int(200)}, {"a": Array([1, 2])})))
    properties: Any = seen.properties
    assert properties.correlation_id == 5
    assert seen.value == {b"a": [1, 2]}


@pytest.mark.parametrize(
    "data", [b"x", section(0x73, {}), section(0x74, []), section(0x99, b""), section(0x73, [["list"]])]
)
def test_malformed_messages_are_refused(data: bytes) -> None:
    with pytest.raises(CodecError):
        read_message(data)
