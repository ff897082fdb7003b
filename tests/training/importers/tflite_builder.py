"""Small TFLite SSDs, written field by field from the public schema."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import flatbuffers
import numpy as np
from flatbuffers import flexbuffers
from numpy.typing import NDArray

__all__ = ["COLUMNS", "POST_PROCESSING", "ROWS", "Network", "Precision", "encode_table", "tiny_ssd"]

Precision = Literal["float32", "float16", "int8_weights", "int8"]
Array = NDArray[Any]

ROWS, COLUMNS = 10, 13
POST_PROCESSING = {
    "max_detections": 20,
    "max_classes_per_detection": 1,
    "detections_per_class": 100,
    "use_regular_nms": True,
    "nms_score_threshold": 0.2,
    "nms_iou_threshold": 0.5,
    "num_classes": 3,
    "y_scale": 10.0,
    "x_scale": 8.0,
    "h_scale": 5.0,
    "w_scale": 4.0,
}
_TYPES = {"float32": 0, "float16": 1, "int32": 2, "uint8": 3, "int64": 4, "int8": 9}
_CUSTOM = 32
# Built-in operators: code, type of the options, version of the kernel.
_OPERATORS = {
    "ADD": (0, 11, 2),
    "CONCATENATION": (2, 10, 2),
    "CONV_2D": (3, 1, 3),
    "DEPTHWISE_CONV_2D": (4, 2, 3),
    "DEQUANTIZE": (6, 46, 5),
    "LOGISTIC": (14, 0, 2),
    "MUL": (18, 21, 2),
    "RESHAPE": (22, 17, 1),
    "MAX_POOL_2D": (17, 5, 1),
    "CAST": (53, 37, 1),
    "PAD": (34, 22, 2),
    "TFLite_Detection_PostProcess": (_CUSTOM, 0, 1),
}
_SAME, _VALID = 0, 1
_NONE, _RELU, _RELU6 = 0, 1, 3


def encode_table(fields: dict[int, Any], identifier: bytes | None = None) -> bytes:
    """Return a flatbuffer of nested tables.

    A field is a numpy scalar, a text, an array (vector), a dict (table) or a list of dicts.
    """
    builder = flatbuffers.Builder(1 << 14)
    builder.Finish(_write(builder, fields), identifier)
    return bytes(builder.Output())


def _write(builder: Any, fields: dict[int, Any]) -> int:
    offsets = {n: _write_value(builder, v) for n, v in fields.items() if not _is_scalar(v)}
    builder.StartObject(max(fields, default=-1) + 1)
    for number, value in fields.items():
        if number in offsets:
            builder.PrependUOffsetTRelative(offsets[number])
        else:
            getattr(builder, f"Prepend{value.dtype.name.title()}")(value.item())
        builder.Slot(number)
    return int(builder.EndObject())


def _is_scalar(value: Any) -> bool:
    return isinstance(value, np.generic)


def _write_value(builder: Any, value: Any) -> int:
    if isinstance(value, str):
        return int(builder.CreateString(value))
    if isinstance(value, dict):
        return _write(builder, value)
    if isinstance(value, bytes):
        return int(builder.CreateByteVector(value))
    if isinstance(value, np.ndarray):
        return int(builder.CreateNumpyVector(value))
    tables = [_write(builder, item) for item in value]
    builder.StartVector(4, len(tables), 4)
    for offset in reversed(tables):
        builder.PrependUOffsetTRelative(offset)
    return int(builder.EndVector())


@dataclass
class Network:
    """A TFLite network under construction; tensors are referred to by index."""

    tensors: list[dict[int, Any]] = field(default_factory=list)
    buffers: list[dict[int, Any]] = field(default_factory=lambda: [{}])
    codes: list[str] = field(default_factory=list)
    operators: list[dict[int, Any]] = field(default_factory=list)
    metadata: list[dict[int, Any]] = field(default_factory=list)

    def tensor(
        self,
        name: str,
        shape: Sequence[int],
        dtype: str = "float32",
        values: Array | None = None,
        quantization: tuple[Any, Any, int] | None = None,
    ) -> int:
        """Add a tensor; `quantization` is scale, zero point and axis."""
        table = {
            0: np.array(shape, np.int32),
            1: np.int8(_TYPES[dtype]),
            2: np.uint32(self.buffer(values.tobytes()) if values is not None else 0),
            3: name,
        }
        if quantization is not None:
            scale, zero_point, axis = quantization
            table[4] = {
                2: np.atleast_1d(np.float32(scale)),
                3: np.atleast_1d(np.int64(zero_point)),
                6: np.int32(axis),
            }
        self.tensors.append(table)
        return len(self.tensors) - 1

    def buffer(self, data: bytes) -> int:
        self.buffers.append({0: data})
        return len(self.buffers) - 1

    def operator(
        self,
        name: str,
        inputs: Sequence[int],
        outputs: Sequence[int],
        options: dict[int, Any] | None = None,
        custom: dict[str, Any] | None = None,
    ) -> int:
        """Add an operator; return its first output."""
        if name not in self.codes:
            self.codes.append(name)
        table = {
            0: np.uint32(self.codes.index(name)),
            1: np.array(inputs, np.int32),
            2: np.array(outputs, np.int32),
        }
        kind = _OPERATORS[name][1] if name in _OPERATORS else 0
        if kind:
            table |= {3: np.uint8(kind), 4: options or {}}
        if custom is not None:
            table[5] = bytes(flexbuffers.Dumps(custom))
        self.operators.append(table)
        return outputs[0]

    def build(self, image: int, outputs: Sequence[int]) -> bytes:
        """Return the content of the file."""
        codes = []
        for name in self.codes:
            code, _, version = _OPERATORS[name]
            codes.append({0: np.int8(code), 2: np.int32(version), 3: np.int32(code)})
            if code == _CUSTOM:
                codes[-1][1] = name
        graph = {
            0: self.tensors,
            1: np.array([image], np.int32),
            2: np.array(outputs, np.int32),
            3: self.operators,
        }
        model = {0: np.uint32(3), 1: codes, 2: [graph], 4: self.buffers, 6: self.metadata}
        return encode_table(model, b"TFL3")


class _TinySsd(Network):
    """Convolutions of every kind, a residual, padding, and heads on two feature maps."""

    def __init__(self, precision: Precision, post_processing: dict[str, Any], classes: int) -> None:
        super().__init__()
        self.columns = {"offsets": 4, "logits": classes}
        self.precision = precision
        self.post_processing = post_processing
        self.random = np.random.default_rng(7)
        self.steps: dict[int, float] = {}

    def activation(self, name: str, shape: Sequence[int], low: float, high: float) -> int:
        """Add a computed tensor; in int8 it represents the values from `low` to `high`."""
        if self.precision != "int8":
            return self.tensor(name, shape)
        step = (high - low) / 255
        zero_point = round(-128 - low / step)
        index = self.tensor(name, shape, "int8", None, (step, zero_point, 0))
        self.steps[index] = step
        return index

    def weights(self, shape: Sequence[int], axis: int) -> tuple[int, Array]:
        """Add random weights; return them and their steps."""
        fan_in = np.prod(shape) / shape[axis]
        values = self.random.normal(size=shape).astype(np.float32) / np.sqrt(fan_in)
        values *= self.random.uniform(0.5, 2, [n if i == axis else 1 for i, n in enumerate(shape)])
        values = values.astype(np.float32)
        if self.precision == "float32":
            return self.tensor("weights", shape, values=values), np.ones(1)
        if self.precision == "float16":
            stored = self.tensor("half", shape, "float16", values.astype(np.float16))
            return self.dequantize(stored, shape), np.ones(1)
        others = tuple(index for index in range(len(shape)) if index != axis)
        scale = (np.abs(values).max(others) / 127).astype(np.float32)
        spread = scale.reshape([-1 if index == axis else 1 for index in range(len(shape))])
        rounded = np.round(values / spread).astype(np.int8)
        quantization = (scale, np.zeros(len(scale)), axis)
        stored = self.tensor("weights", shape, "int8", rounded, quantization)
        return (stored if self.precision == "int8" else self.dequantize(stored, shape)), scale

    def dequantize(self, stored: int, shape: Sequence[int]) -> int:
        return self.operator("DEQUANTIZE", [stored], [self.tensor("float", shape)])

    def bias(self, image: int, scale: Array, count: int) -> int:
        values = self.random.normal(size=count).astype(np.float32) / 4
        if self.precision != "int8":
            return self.tensor("bias", [count], values=values)
        step = (scale * self.steps[image]).astype(np.float32)
        rounded = np.round(values / step).astype(np.int32)
        return self.tensor("bias", [count], "int32", rounded, (step, np.zeros(count), 0))

    def conv(
        self,
        image: int,
        shape: Sequence[int],
        output: int,
        *,
        stride: int = 1,
        padding: int = _SAME,
        activation: int = _NONE,
        depthwise: bool = False,
    ) -> int:
        weights, scale = self.weights(shape, 3 if depthwise else 0)
        count = shape[3 if depthwise else 0]
        options = {0: np.int8(padding), 1: np.int32(stride), 2: np.int32(stride)}
        if depthwise:
            options |= {3: np.int32(2), 4: np.int8(activation)}
        else:
            options[3] = np.int8(activation)
        inputs = [image, weights, self.bias(image, scale, count)]
        name = "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D"
        return self.operator(name, inputs, [output], options)

    def head(self, image: int, kernel: Sequence[int], cells: tuple[int, int], size: int) -> int:
        """Add a head with two boxes of `size` values per cell."""
        raw = self.activation("head", [1, *cells, 2 * size], -6, 6)
        self.conv(image, [2 * size, *kernel], raw)
        shape = [1, 2 * cells[0] * cells[1], size]
        target = self.tensor("shape", [3], "int32", np.array(shape, np.int32))
        output = self.activation("rows", shape, -6, 6)
        return self.operator("RESHAPE", [raw, target], [output])

    def anchors(self) -> int:
        centers = self.random.uniform(0.2, 0.8, (88, 2))
        sizes = self.random.uniform(0.2, 0.5, (88, 2))
        values = np.concatenate([centers, sizes], 1).astype(np.float32)
        return self.tensor("anchors", [88, 4], values=values)

    def create(self) -> list[int]:
        image = self.activation("image", [1, ROWS, COLUMNS, 3], -1, 1)
        # In int8 the range of the output is the ReLU6, as in the files of TensorFlow 1.
        fused = _NONE if self.precision == "int8" else _RELU6
        first = self.activation("first", [1, 5, 7, 8], 0, 6)
        self.conv(image, [8, 3, 3, 3], first, stride=2, activation=fused)
        deep = self.activation("deep", [1, 5, 7, 16], 0, 6)
        self.conv(first, [1, 3, 3, 16], deep, activation=_RELU6, depthwise=True)
        narrow = self.activation("narrow", [1, 5, 7, 8], -6, 6)
        self.conv(deep, [8, 1, 1, 16], narrow)
        total = self.activation("sum", [1, 5, 7, 8], -6, 6)
        self.operator("ADD", [first, narrow], [total], {0: np.int8(_NONE)})
        margins = np.array([[0, 0], [1, 2], [0, 1], [0, 0]], np.int32)
        amounts = self.tensor("margins", [4, 2], "int32", margins)
        padded = self.activation("padded", [1, 8, 8, 8], -6, 6)
        self.operator("PAD", [total, amounts], [padded])
        second = self.activation("second", [1, 3, 3, 6], 0, 8)
        options = {"stride": 2, "padding": _VALID, "activation": _RELU}
        self.conv(padded, [6, 3, 3, 8], second, **options)  # type: ignore[arg-type]
        heads = []
        for name, kernel in (("offsets", 1), ("logits", 3)):
            parts = [
                self.head(total, [kernel, kernel, 8], (5, 7), self.columns[name]),
                self.head(second, [kernel, kernel, 6], (3, 3), self.columns[name]),
            ]
            heads.append(self.activation(name, [1, 88, self.columns[name]], -6, 6))
            self.operator("CONCATENATION", parts, [heads[-1]], {0: np.int32(1)})
        scores = self.activation("scores", [1, 88, self.columns["logits"]], 0, 255 / 256)
        self.operator("LOGISTIC", [heads[1]], [scores])
        offsets = heads[0]
        if self.precision == "int8":
            offsets, scores = (self.dequantize(head, [1, 88, 4]) for head in (offsets, scores))
        results = [self.tensor(f"result {n}", []) for n in range(4)]
        inputs = [offsets, scores, self.anchors()]
        name = "TFLite_Detection_PostProcess"
        self.operator(name, inputs, results, custom=self.post_processing)
        return results


def tiny_ssd(
    precision: Precision,
    post_processing: dict[str, Any] | None = None,
    change: Callable[[Network], None] = lambda _: None,
    classes: int = 4,
) -> bytes:
    """Return a TFLite SSD: 10 × 13 pixels, 88 default boxes, four score columns.

    `change` may change the network before it is written; the image is tensor 0.
    """
    network = _TinySsd(precision, post_processing or POST_PROCESSING, classes)
    results = network.create()
    change(network)
    return network.build(0, results)
