"""Parts of the stand-in for TensorRT that are the same in all generations."""

from __future__ import annotations

from typing import Any

import onnx
from onnx import TensorProto


class Error:
    def __init__(self, text: str) -> None:
        self._text = text

    def desc(self) -> str:
        return self._text


def check_dequantized_types(graph: onnx.GraphProto) -> None:
    """Reject INT32 inputs of DequantizeLinear, as every TensorRT parser does."""
    int32 = {item.name for item in graph.initializer if item.data_type == TensorProto.INT32}
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in int32:
            raise ValueError(
                f"{node.name}: input has type Int32 but must have type FP8, Int4 or Int8"
            )


class Profile:
    def __init__(self) -> None:
        self.shapes: dict[str, list[tuple[int, ...]]] = {}

    def set_shape(self, name: str, minimum: Any, optimum: Any, maximum: Any) -> None:
        self.shapes[name] = [tuple(minimum), tuple(optimum), tuple(maximum)]


class TimingCache:
    def __init__(self, content: bytes) -> None:
        self.content = content

    def serialize(self) -> bytes:
        return self.content


class RuntimeCache:
    """Kernels by name; only contents that this version wrote are accepted."""

    def __init__(self, magic: bytes) -> None:
        self._magic = magic
        self.kernels: set[str] = set()
        self.loaded = False

    def serialize(self) -> bytes:
        return self._magic + "\n".join(sorted(self.kernels)).encode()

    def deserialize(self, blob: bytes) -> bool:
        self.loaded = blob.startswith(self._magic)
        if self.loaded:
            self.kernels = set(filter(None, blob[len(self._magic) :].decode().split("\n")))
        return self.loaded


class RuntimeConfig:
    def __init__(self, magic: bytes) -> None:
        self._magic = magic
        self.allocation: Any = None
        self.cuda_graph_strategy: Any = None
        self.dynamic_shapes_kernel_specialization_strategy: Any = None
        self._cache: RuntimeCache | None = None

    def set_execution_context_allocation_strategy(self, strategy: Any) -> None:
        self.allocation = strategy

    def create_runtime_cache(self) -> RuntimeCache:
        return RuntimeCache(self._magic)

    def set_runtime_cache(self, cache: RuntimeCache) -> bool:
        self._cache = cache
        return True

    def get_runtime_cache(self) -> RuntimeCache | None:
        return self._cache
