"""Reader of TFLite files: the tables and fields of the public schema that an SSD needs.

Source: the TFLite schema (version 3) of the TensorFlow project. A table is a numbered list of
fields, of which this module reads those by number that the importer uses.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from flatbuffers import encode, flexbuffers, packer
from flatbuffers import number_types as types
from flatbuffers.table import Table
from numpy.typing import NDArray

from realtime_ssd.core.errors import ModelError

__all__ = [
    "DAMAGED",
    "Operator",
    "Tensor",
    "TfliteFile",
    "pixel_scaling",
    "read_tflite",
    "root_table",
]

_IDENTIFIER = b"TFL3"
DAMAGED = (struct.error, IndexError, KeyError, ValueError, TypeError, OverflowError, MemoryError)
"""What reading a damaged flatbuffer raises."""

_DTYPES: dict[int, type[np.generic]] = {
    0: np.float32,
    1: np.float16,
    2: np.int32,
    3: np.uint8,
    4: np.int64,
    7: np.int16,
    9: np.int8,
}

OPERATORS = {
    0: "ADD",
    1: "AVERAGE_POOL_2D",
    2: "CONCATENATION",
    3: "CONV_2D",
    4: "DEPTHWISE_CONV_2D",
    6: "DEQUANTIZE",
    14: "LOGISTIC",
    17: "MAX_POOL_2D",
    18: "MUL",
    19: "RELU",
    21: "RELU6",
    22: "RESHAPE",
    23: "RESIZE_BILINEAR",
    25: "SOFTMAX",
    34: "PAD",
    36: "GATHER",
    39: "TRANSPOSE",
    40: "MEAN",
    41: "SUB",
    43: "SQUEEZE",
    45: "STRIDED_SLICE",
    53: "CAST",
    83: "PACK",
    97: "RESIZE_NEAREST_NEIGHBOR",
    114: "QUANTIZE",
    117: "HARD_SWISH",
}
"""Names of frequent built-in operators by code; the others are named by their number."""

_POOL: dict[str, tuple[int, Any, int | float]] = {
    "padding": (0, types.Int8Flags, 0),
    "stride_w": (1, types.Int32Flags, 0),
    "stride_h": (2, types.Int32Flags, 0),
    "filter_w": (3, types.Int32Flags, 0),
    "filter_h": (4, types.Int32Flags, 0),
    "activation": (5, types.Int8Flags, 0),
}
_OPTIONS: dict[str, dict[str, tuple[int, Any, int | float]]] = {
    "ADD": {"activation": (0, types.Int8Flags, 0)},
    "MUL": {"activation": (0, types.Int8Flags, 0)},
    "SUB": {"activation": (0, types.Int8Flags, 0)},
    "CONCATENATION": {"axis": (0, types.Int32Flags, 0), "activation": (1, types.Int8Flags, 0)},
    "CONV_2D": {
        "padding": (0, types.Int8Flags, 0),
        "stride_w": (1, types.Int32Flags, 0),
        "stride_h": (2, types.Int32Flags, 0),
        "activation": (3, types.Int8Flags, 0),
        "dilation_w": (4, types.Int32Flags, 1),
        "dilation_h": (5, types.Int32Flags, 1),
    },
    "DEPTHWISE_CONV_2D": {
        "padding": (0, types.Int8Flags, 0),
        "stride_w": (1, types.Int32Flags, 0),
        "stride_h": (2, types.Int32Flags, 0),
        "activation": (4, types.Int8Flags, 0),
        "dilation_w": (5, types.Int32Flags, 1),
        "dilation_h": (6, types.Int32Flags, 1),
    },
    "SOFTMAX": {"beta": (0, types.Float32Flags, 0.0)},
    "AVERAGE_POOL_2D": _POOL,
    "MAX_POOL_2D": _POOL,
    "MEAN": {"keep_dims": (0, types.BoolFlags, 0)},
    "RESIZE_BILINEAR": {
        "align_corners": (2, types.BoolFlags, 0),
        "half_pixel_centers": (3, types.BoolFlags, 0),
    },
    "RESIZE_NEAREST_NEIGHBOR": {
        "align_corners": (0, types.BoolFlags, 0),
        "half_pixel_centers": (1, types.BoolFlags, 0),
    },
}
"""Fields of the options of each operator: number, type and default value."""


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """A tensor of the file.

    Attributes:
        name: Its name.
        shape: Declared shape.
        dtype: Type of the values; None for a type that is not read.
        values: Values of a constant in the stored type, else None.
        scale: Steps of the quantization, one or one per channel; empty if not quantized.
        zero_point: Stored value of 0 for each step.
        axis: Axis of the channels if there are several steps.
    """

    name: str
    shape: tuple[int, ...]
    dtype: type[np.generic] | None
    values: NDArray[Any] | None
    scale: NDArray[np.float64]
    zero_point: NDArray[np.float64]
    axis: int = 0

    @property
    def is_8bit(self) -> bool:
        """Whether its values are 8-bit integers with one step for all."""
        return self.dtype in (np.uint8, np.int8) and len(self.scale) == 1

    def real_values(self) -> NDArray[Any]:
        """Return a constant dequantized, in float32; integers without a step stay integers."""
        if self.values is None:
            raise ModelError(f"the tensor '{self.name}' is not constant")
        if not len(self.scale):
            is_float = np.issubdtype(self.values.dtype, np.floating)
            return self.values.astype(np.float32) if is_float else self.values
        shape = [1] * self.values.ndim
        if len(self.scale) > 1:
            shape[self.axis] = -1
        centered = self.values.astype(np.float64) - self.zero_point.reshape(shape)
        return np.asarray(centered * self.scale.reshape(shape), np.float32)


@dataclass(frozen=True, slots=True)
class Operator:
    """An operator of the file.

    Attributes:
        name: Name of the operator, built-in or custom.
        inputs: Indices of its inputs; -1 for an absent one.
        outputs: Indices of its outputs.
        options: Values of its options.
    """

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TfliteFile:
    """The content of a TFLite file.

    Attributes:
        tensors: All tensors.
        operators: Operators in the order of execution.
        inputs: Indices of the inputs.
        metadata: Metadata buffers by name.
    """

    tensors: list[Tensor]
    operators: list[Operator]
    inputs: tuple[int, ...]
    metadata: dict[str, bytes]


def read_tflite(path: Path) -> TfliteFile:
    """Read a TFLite file.

    Raises:
        ModelError: If it is not a TFLite model, is damaged, or has several subgraphs.
    """
    data = path.read_bytes()
    if data[4:8] != _IDENTIFIER:
        raise ModelError(f"'{path}' is not a TFLite model; it may be damaged")
    try:
        return _read_model(root_table(data))
    except DAMAGED as error:
        raise ModelError(f"'{path}' is not a readable TFLite model; it may be damaged") from error


def root_table(data: bytes) -> _Fields:
    """Return the root table of a flatbuffer."""
    return _Fields(Table(data, encode.Get(packer.uoffset, data, 0)))


def pixel_scaling(tensor: Tensor) -> tuple[float, float] | None:
    """Return mean and scale of an 8-bit input: its real values are (pixel - mean) * scale.

    Returns:
        None if the input is not quantized with one step.
    """
    if not tensor.is_8bit:
        return None
    shift = 0 if tensor.dtype is np.uint8 else 128  # stored value of a pixel: pixel - shift
    return float(tensor.zero_point[0]) + shift, float(tensor.scale[0])


class _Fields:
    """Fields of one table by number; absent ones have their default."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def _offset(self, number: int) -> int:
        return int(self._table.Offset(4 + 2 * number))

    def scalar(self, number: int, kind: Any, default: int | float = 0) -> Any:
        """Return a number."""
        offset = self._offset(number)
        return self._table.Get(kind, self._table.Pos + offset) if offset else default

    def text(self, number: int) -> str:
        """Return a string, empty if absent."""
        offset = self._offset(number)
        if not offset:
            return ""
        return bytes(self._table.String(self._table.Pos + offset)).decode("utf-8", "replace")

    def array(self, number: int, kind: Any) -> NDArray[Any]:
        """Return a vector of numbers, empty if absent."""
        offset = self._offset(number)
        if not offset:
            return np.zeros(0, np.dtype(kind.name))
        return np.asarray(self._table.GetVectorAsNumpy(kind, offset))

    def table(self, number: int) -> _Fields | None:
        """Return a table inside this one, None if absent."""
        offset = self._offset(number)
        if not offset:
            return None
        return _Fields(Table(self._table.Bytes, self._table.Indirect(self._table.Pos + offset)))

    def tables(self, number: int) -> list[_Fields]:
        """Return a vector of tables, empty if absent."""
        offset = self._offset(number)
        if not offset:
            return []
        start = self._table.Vector(offset)
        return [
            _Fields(Table(self._table.Bytes, self._table.Indirect(start + 4 * index)))
            for index in range(self._table.VectorLen(offset))
        ]

    def indices(self, number: int) -> tuple[int, ...]:
        """Return a vector of 32-bit integers."""
        return tuple(self.array(number, types.Int32Flags).tolist())


def _read_model(model: _Fields) -> TfliteFile:
    buffers = [item.array(0, types.Uint8Flags) for item in model.tables(4)]
    subgraphs = model.tables(2)
    if len(subgraphs) != 1:
        raise ModelError(f"the TFLite model has {len(subgraphs)} subgraphs; one is expected")
    graph = subgraphs[0]
    names = [_operator_name(code) for code in model.tables(1)]
    return TfliteFile(
        tensors=[_read_tensor(item, buffers) for item in graph.tables(0)],
        operators=[_read_operator(item, names) for item in graph.tables(3)],
        inputs=graph.indices(1),
        metadata={
            item.text(0): buffers[item.scalar(1, types.Uint32Flags)].tobytes()
            for item in model.tables(6)
        },
    )


def _operator_name(code: _Fields) -> str:
    custom = code.text(1)
    # Codes above 127 are only in the newer of the two fields.
    number = max(code.scalar(0, types.Int8Flags), code.scalar(3, types.Int32Flags))
    return custom or OPERATORS.get(number, f"built-in operator {number}")


def _read_operator(table: _Fields, names: list[str]) -> Operator:
    name = names[table.scalar(0, types.Uint32Flags)]
    options: dict[str, Any] = {}
    custom = table.array(5, types.Uint8Flags)
    if len(custom):
        loaded = flexbuffers.Loads(custom.tobytes())
        options = loaded if isinstance(loaded, dict) else {}
    elif name in _OPTIONS:
        fields = table.table(4)
        for key, (number, kind, default) in _OPTIONS[name].items():
            options[key] = fields.scalar(number, kind, default) if fields else default
    return Operator(name, table.indices(1), table.indices(2), options)


def _read_tensor(table: _Fields, buffers: list[NDArray[Any]]) -> Tensor:
    shape = table.indices(0)
    dtype = _DTYPES.get(table.scalar(1, types.Int8Flags))
    data = buffers[table.scalar(2, types.Uint32Flags)]
    values = None
    if len(data) and dtype is not None:
        values = data.view(np.dtype(dtype).newbyteorder("<")).reshape(shape)
    quantization = table.table(4)
    scale, zero_point, axis = np.zeros(0), np.zeros(0), 0
    if quantization is not None:
        scale = quantization.array(2, types.Float32Flags).astype(np.float64)
        zero_point = quantization.array(3, types.Int64Flags).astype(np.float64)
        axis = quantization.scalar(6, types.Int32Flags)
    if len(scale) != len(zero_point):
        zero_point = np.zeros(len(scale))
    return Tensor(table.text(3), shape, dtype, values, scale, zero_point, axis)
