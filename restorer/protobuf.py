"""The wire format of protobuf messages, which ONNX files are: fields by number, no schema and no other package."""

from collections.abc import Iterator
from typing import Any

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_LONGEST_VARINT = 10  # bytes, of 64 bits


def fields(message: memoryview) -> Iterator[tuple[int, Any]]:
    """(field number, value) of a message: integers, and views of the bytes of everything longer.

    Raises
    ------
    ValueError : it ends within a field, or holds what no message can.
    """
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind = key & 7
        value: Any
        if kind == _VARINT:
            value, at = _varint(message, at)
        elif kind == _BYTES:
            size, at = _varint(message, at)
            value, at = message[at : at + size], at + size
        elif kind in (_FIXED32, _FIXED64):
            size = 4 if kind == _FIXED32 else 8
            value, at = message[at : at + size], at + size
        else:
            raise ValueError(f"wire type {kind} at byte {at}")
        if at > len(message):
            raise ValueError("it ends within a field")
        yield key >> 3, value


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
