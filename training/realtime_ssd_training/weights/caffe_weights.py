"""Reader of Caffe weights (.caffemodel), the wire form of protocol buffers.

Source: the field numbers of BVLC Caffe for the names and blobs of layers, also in the older
`layers` (V1), and for the values and shapes of blobs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from realtime_ssd.core.errors import ModelError, UsageError
from realtime_ssd_training.weights.caffe_schema import (
    Message,
    build_message_class,
    optional,
    repeated,
)

__all__ = ["Blobs", "read_weights"]

Blobs = list[NDArray[np.float32]]

_NetWeights = build_message_class(
    "NetWeights",
    {
        "NetWeights": {
            "layers": repeated("V1Layer", number=2),
            "layer": repeated("Layer", number=100),
        },
        "V1Layer": {
            "name": optional("bytes", number=4),
            "blobs": repeated("Blob", number=6),
        },
        "Layer": {
            "name": optional("bytes", number=1),
            "blobs": repeated("Blob", number=7),
        },
        "Blob": {
            # The four sizes of older files; an absent one is 1.
            "num": optional("int32", "1", number=1),
            "channels": optional("int32", "1", number=2),
            "height": optional("int32", "1", number=3),
            "width": optional("int32", "1", number=4),
            "data": repeated("float", number=5),
            "shape": optional("Shape", number=7),
            "double_data": repeated("double", number=8),
        },
        "Shape": {"dim": repeated("int64", number=1)},
    },
)
_Floats = build_message_class("Floats", {"Floats": {"values": repeated("float")}})
_Doubles = build_message_class("Doubles", {"Doubles": {"values": repeated("double")}})


def read_weights(path: Path) -> dict[str, Blobs]:
    """Read the weights of every layer that has any.

    Args:
        path: The .caffemodel file.

    Returns:
        Arrays by layer name, in the order of the layer's blobs.

    Raises:
        UsageError: If the file cannot be read.
        ModelError: If it is damaged or has no layer with weights.
    """
    net = _NetWeights()
    try:
        net.ParseFromString(path.read_bytes())
        weights = {
            layer.name.decode("utf-8"): [_to_array(blob) for blob in layer.blobs]
            for layers in (net.layers, net.layer)
            for layer in layers
            if layer.blobs
        }
    except OSError as error:
        raise UsageError(f"'{path}' cannot be read: {error.strerror}") from error
    except (DecodeError, ValueError) as error:
        raise ModelError(
            f"'{path}' is not a readable .caffemodel file; it may be truncated or damaged: "
            "download it again"
        ) from error
    if not weights:
        raise ModelError(f"'{path}' has no layer with weights; use the trained .caffemodel")
    return weights


def _to_array(blob: Message) -> NDArray[np.float32]:
    values = np.concatenate(
        [
            _view(blob.data, _Floats(), np.dtype("<f4")),
            _view(blob.double_data, _Doubles(), np.dtype("<f8")),
        ],
        dtype=np.float32,
        casting="same_kind",
    )
    old_shape = [blob.num, blob.channels, blob.height, blob.width]
    shape = list(blob.shape.dim) if blob.HasField("shape") else old_shape
    if any(size < 0 for size in shape):  # numpy would infer such a size
        raise ValueError(f"a blob has the shape {shape}")
    return values.reshape(shape)


def _view(numbers: Message, packed: Message, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return a list of numbers as a read-only array.

    The wire form of a packed list ends with the numbers in little-endian order. Viewing them there
    is faster than converting the list number by number.
    """
    packed.values.MergeFrom(numbers)
    data = packed.SerializeToString()
    return np.frombuffer(data, dtype, offset=len(data) - len(numbers) * dtype.itemsize)
