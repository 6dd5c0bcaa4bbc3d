"""The wire format of protobuf messages, which ONNX files are: fields by number, no schema and no other package."""

from collections.abc import Iterator
from typing import Any

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_LONGEST_VARINT = 10  # bytes, of 64 bits


def fields(message: memoryview) -> Iterator[tuple[int, Any]]:
    """(field number, value) of a message: an integer, a view of the bytes of what has a length, or 4 or 8 bytes.

    The three are of different types, so that a caller who looks at the type reads what protobuf's own readers do:
    they skip a field of another wire type than its number has. Those readers cut a key to 32 bits, so a longer one
    would be another field to them than to us.

    Raises
    ------
    ValueError : it ends within a field, or holds what no message can.
    """
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        if key >> 32 or not key >> 3:
            raise ValueError(f"an impossible field number before byte {at}")
        kind = key & 7
        value: Any
        if kind == _VARINT:
            value, at = _varint(message, at)
        elif kind == _BYTES:
            size, at = _varint(message, at)
            value, at = message[at : at + size], at + size
        elif kind in (_FIXED32, _FIXED64):
            size = 4 if kind == _FIXED32 else 8
            value, at = bytes(message[at : at + size]), at + size
        else:
            raise ValueError(f"wire type {kind} at byte {at}")
        if at > len(message):
            raise ValueError("it ends within a field")
        yield key >> 3, value


def message(value: Any) -> memoryview:
    """A field's value that must be bytes: text, numbers in a row or a message within the message."""
    if not isinstance(value, memoryview):
        raise ValueError("a number where a message should be")
    return value


def number(value: Any) -> int:
    """A field's value that must be an integer."""
    if not isinstance(value, int):
        raise ValueError("bytes where a number should be")
    return value


def text(value: Any) -> str:
    """A field's value that must be text."""
    return bytes(message(value)).decode()


def varints(data: memoryview) -> list[int]:
    """The numbers of a packed field."""
    values, at = [], 0
    while at < len(data):
        value, at = _varint(data, at)
        values.append(value)
    return values


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 7 * _LONGEST_VARINT, 7):
        if at >= len(data):
            raise ValueError("it ends within a number")
        byte = data[at]
        value |= (byte & 127) << shift
        at += 1
        if byte < 128:
            return value, at
    raise ValueError(f"a number without an end at byte {at}")
