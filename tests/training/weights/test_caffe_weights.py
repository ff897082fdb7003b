"""Weights in the wire form of protocol buffers, encoded byte by byte."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from realtime_ssd_training.weights.caffe_weights import read_weights

from realtime_ssd.core.errors import ModelError, UsageError
from tests.training.importers.caffe_files import blob, block, encode_layer, varint, write_caffemodel

SHAPE_2_3 = block(7, block(1, bytes([2, 3])))
VALUES = np.array([[0, 0.1, -2], [3, 1e-20, 5]], np.float32)


def write_blob(path: Path, data: bytes) -> Path:
    path.write_bytes(encode_layer("conv", [data]))
    return path


def unpacked(field: int, wire_type: int, values: bytes, width: int) -> bytes:
    key = varint(field << 3 | wire_type)
    return b"".join(key + values[i : i + width] for i in range(0, len(values), width))


FLOATS, DOUBLES = VALUES.astype("<f4").tobytes(), VALUES.astype("<f8").tobytes()
ENCODINGS = {
    "packed floats": block(5, FLOATS) + SHAPE_2_3,
    "unpacked floats": unpacked(5, 5, FLOATS, 4) + SHAPE_2_3,
    "several packed blocks": block(5, FLOATS[:8]) + SHAPE_2_3 + block(5, FLOATS[8:]),
    "packed and unpacked floats": block(5, FLOATS[:8]) + unpacked(5, 5, FLOATS[8:], 4) + SHAPE_2_3,
    "packed doubles": block(8, DOUBLES) + SHAPE_2_3,
    "unpacked doubles": unpacked(8, 1, DOUBLES, 8) + SHAPE_2_3,
    "unpacked shape": block(7, bytes([8, 2, 8, 3])) + block(5, FLOATS),
    "shape and unknown gradients": block(6, FLOATS) + block(5, FLOATS) + SHAPE_2_3,
    "shape and older sizes": bytes([8, 6, 16, 1, 24, 1, 32, 1]) + block(5, FLOATS) + SHAPE_2_3,
}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_all_encodings_of_numbers_are_read(tmp_path: Path, encoding: str) -> None:
    path = write_blob(tmp_path / "net.caffemodel", ENCODINGS[encoding])
    (array,) = read_weights(path)["conv"]
    assert array.dtype == np.float32
    assert array.flags.writeable
    np.testing.assert_array_equal(array, VALUES)


def test_older_sizes_default_to_one(tmp_path: Path) -> None:
    data = bytes([16, 2, 24, 3]) + block(5, FLOATS)  # channels 2, height 3
    (array,) = read_weights(write_blob(tmp_path / "net.caffemodel", data))["conv"]
    np.testing.assert_array_equal(array, VALUES.reshape(1, 2, 3, 1))
    (scalar,) = read_weights(write_blob(tmp_path / "net.caffemodel", block(5, FLOATS[:4])))["conv"]
    assert scalar.shape == (1, 1, 1, 1)


def test_an_empty_shape_is_a_scalar(tmp_path: Path) -> None:
    path = write_blob(tmp_path / "net.caffemodel", block(7, b"") + block(5, FLOATS[4:8]))
    (array,) = read_weights(path)["conv"]
    assert array.shape == ()
    assert array == np.float32(0.1)


def test_layers_of_both_generations_keep_the_order_of_their_blobs(tmp_path: Path) -> None:
    path = tmp_path / "net.caffemodel"
    path.write_bytes(
        encode_layer("new", [blob(np.ones(2)), blob(np.zeros(3))])
        + encode_layer("data", [])
        + encode_layer("old", [blob(np.full((2, 2), 7.0), old=True)], old=True)
    )
    weights = read_weights(path)
    assert sorted(weights) == ["new", "old"]
    assert [array.tolist() for array in weights["new"]] == [[1, 1], [0, 0, 0]]
    assert weights["old"][0].shape == (1, 1, 2, 2)


NEGATIVE_ONE = b"\xff" * 9 + b"\x01"
DAMAGED = {
    "more values than the shape": block(5, FLOATS * 2) + SHAPE_2_3,
    "fewer values than the shape": block(5, FLOATS[:-4]) + SHAPE_2_3,
    "no values": SHAPE_2_3,
    "floats and doubles": block(5, FLOATS) + block(8, DOUBLES) + SHAPE_2_3,
    "a negative size": block(7, block(1, b"\x02" + NEGATIVE_ONE)) + block(5, FLOATS),
    "a negative older size": b"\x10" + NEGATIVE_ONE + block(5, FLOATS),
    "a size beyond memory": block(7, block(1, varint(2**62) + varint(2))) + block(5, FLOATS),
    "half a float": block(5, FLOATS[:-1]) + SHAPE_2_3,
    "an unknown wire type": bytes([5 << 3 | 7]),
    "an overlong number": b"\x08" + b"\xff" * 11,
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_damaged_blobs_are_refused(tmp_path: Path, damage: str) -> None:
    path = write_blob(tmp_path / "net.caffemodel", DAMAGED[damage])
    with pytest.raises(ModelError, match=r"not a readable \.caffemodel.*truncated or damaged"):
        read_weights(path)


def test_a_name_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.caffemodel"
    path.write_bytes(block(100, block(1, b"\xff\xfe") + block(7, blob(np.ones(2)))))
    with pytest.raises(ModelError, match="not a readable"):
        read_weights(path)


def test_a_file_truncated_inside_its_layer_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.caffemodel"
    write_caffemodel(path, {"conv": [np.ones((2, 3))]})
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(ModelError, match=r"not a readable|no layer with weights"):
            read_weights(path)


def test_a_file_without_weights_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.caffemodel"
    path.write_bytes(block(1, b"net") + encode_layer("data", []))
    with pytest.raises(ModelError, match=r"has no layer with weights; use the trained"):
        read_weights(path)
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        read_weights(tmp_path / "absent.caffemodel")


def test_a_file_of_more_than_100_megabytes_is_read(tmp_path: Path) -> None:
    path = tmp_path / "net.caffemodel"
    large = np.zeros((1024, 28_000), np.float32)
    large[-1, -1] = 3
    write_caffemodel(path, {"fc6": [large]})
    assert path.stat().st_size > 100e6
    (array,) = read_weights(path)["fc6"]
    assert array.shape == large.shape
    assert array[-1, -1] == 3
