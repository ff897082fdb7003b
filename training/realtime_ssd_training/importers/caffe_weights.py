"""Reader of `.caffemodel` files: the wire form of protocol buffers, only the fields of weights.

Source: the Protocol Buffers encoding specification and the field numbers of caffe.proto:
NetParameter.layer 100 (name 1, blobs 7) and the older layers 2 (name 4, blobs 6); BlobProto.shape
7, data 5, double_data 8 and the older num, channels, height, width 1 to 4.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from realtime_ssd.core.errors import ModelError, UsageError

__all__ = ["Blobs", "read_weights"]

Blobs = list[NDArray[np.float32]]
Field = tuple[int, int, "int | memoryview"]

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
LAYERS = {100: (1, 7), 2: (4, 6)}  # field of the net: fields of name and blobs


def read_weights(path: Path) -> dict[str, Blobs]:
    """Read the weights of every layer that has some.

    Args:
        path: The .caffemodel file.

    Returns:
        Arrays by layer name, in the order of the layer's blobs.

    Raises:
        UsageError: If the file cannot be read.
        ModelError: If it is damaged or holds no layer with weights.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"'{path}' cannot be read: {error.strerror}") from error
    try:
        layers = dict(_layers(memoryview(data)))
    except (IndexError, ValueError, UnicodeDecodeError) as error:
        raise ModelError(
            f"'{path}' is not a readable caffemodel; it may be cut off or damaged: fetch it again"
        ) from error
    if not layers:
        raise ModelError(f"'{path}' holds no layer with weights; give the trained .caffemodel")
    return layers


def _layers(data: memoryview) -> Iterator[tuple[str, Blobs]]:
    for number, kind, value in _fields(data):
        if number not in LAYERS or kind != BYTES:
            continue
        name_field, blobs_field = LAYERS[number]
        name, blobs = "", Blobs()
        for inner, _, part in _fields(_bytes(value)):
            if inner == name_field:
                name = bytes(_bytes(part)).decode("utf-8")
            elif inner == blobs_field:
                blobs.append(_blob(_bytes(part)))
        if blobs:
            yield name, blobs


def _blob(data: memoryview) -> NDArray[np.float32]:
    """Read one array."""
    shape: list[int] = []
    old = {1: 1, 2: 1, 3: 1, 4: 1}
    parts: list[NDArray[np.float32]] = []
    for number, kind, value in _fields(data):
        if number == 7:
            shape = [size for _, _, part in _fields(_bytes(value)) for size in _integers(part)]
            old = {}
        elif number in (5, 8):
            parts.append(_numbers(number, kind, value))
        elif number in old and isinstance(value, int):
            old[number] = value
    values = np.concatenate(parts) if parts else np.zeros(0, np.float32)
    return values.reshape(shape if not old else list(old.values()))


def _numbers(number: int, kind: int, value: int | memoryview) -> NDArray[np.float32]:
    """Read floats (field 5) or doubles (field 8), packed or single."""
    wide = "<f8" if number == 8 else "<f4"
    if kind == BYTES:
        return np.frombuffer(_bytes(value), wide).astype(np.float32)
    single = int(value).to_bytes(8 if number == 8 else 4, "little")
    return np.frombuffer(single, wide).astype(np.float32)


def _integers(value: int | memoryview) -> list[int]:
    """Read one or more (packed) whole numbers."""
    if isinstance(value, int):
        return [value]
    numbers, place = [], 0
    while place < len(value):
        number, place = _varint(value, place)
        numbers.append(number)
    return numbers


def _bytes(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a block was expected, a number was found")
    return value


def _fields(data: memoryview) -> Iterator[Field]:
    """Walk over the fields of a message: number, wire type and value."""
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        number, kind = key >> 3, key & 7
        if kind == VARINT:
            value, place = _varint(data, place)
            yield number, kind, value
            continue
        if kind == BYTES:
            size, place = _varint(data, place)
        elif kind in (FIXED64, FIXED32):
            size = 8 if kind == FIXED64 else 4
        else:
            raise ValueError(f"wire type {kind} is unknown")
        part = data[place : place + size]
        if len(part) != size:
            raise ValueError("the file ends inside a field")
        place += size
        yield number, kind, part if kind == BYTES else int.from_bytes(part, "little")


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    """Read a number of variable length; give it and the place behind it."""
    result = shift = 0
    while True:
        byte = data[place]
        place += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, place
        shift += 7
        if shift > 63:
            raise ValueError("a number is too long")
