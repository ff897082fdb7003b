"""Bounds of the memory and time that a graph needs, derived before anything runs it.

ONNX's shape inference finds most shapes. Where it cannot, the number of elements is bounded by
those of the inputs (`realtime_ssd.core.graph_operators`). Weights are represented by their
shapes, so this takes milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

from realtime_ssd.core.graph_operators import OPERATORS, Growth
from realtime_ssd.core.graph_shapes import SizeError, attribute, infer_shapes

if TYPE_CHECKING:
    import onnx

__all__ = ["SizeError", "check_sizes"]

_BASE, _PER_PIXEL, _PER_OUTPUT = 2**24, 256, 16
"""Elements that a tensor may have: a base, and so many per pixel and per element of the heads. The
first layers of published SSDs have 64 channels in full resolution."""
_LIMIT = 2**29
"""Elements that no tensor may exceed, whatever the size of the input."""
_ALIVE = 4
"""Tensors of the largest size that may exist at the same time."""
_WORK_BASE, _WORK_PER_PIXEL = 2**34, 2**22
"""Multiplications of a run; an SSD with VGG-16 takes 350,000 per pixel."""
_CONVOLUTIONS = frozenset({"Conv", "ConvInteger", "QLinearConv", "ConvTranspose"})
_PRODUCTS = frozenset({"Gemm", "MatMul", "MatMulInteger", "QLinearMatMul"})
_WEIGHT_INPUT = {"QLinearConv": 3}
_POOLS = frozenset({"AveragePool", "LpPool", "MaxPool"})


def check_sizes(model: onnx.ModelProto, shapes: Mapping[str, Sequence[int]], heads: int) -> None:
    """Check that a graph of permitted operators needs neither much memory nor much time.

    Args:
        model: The model; weights may be in other files.
        shapes: Shape of each input (N × C × H × W for images).
        heads: Elements of all outputs.

    Raises:
        SizeError: If a tensor is too large for the inputs and outputs, its size cannot be
            determined, or a run would take too many operations.
    """
    for tensor in model.graph.initializer:
        if prod(tensor.dims) > _LIMIT:
            raise SizeError(f"has a constant '{tensor.name}' of {prod(tensor.dims)} elements")
    pixels = sum(prod(shape) for shape in shapes.values()) // 3
    limit = min(_BASE + _PER_PIXEL * pixels + _PER_OUTPUT * heads, _LIMIT)
    graph = _Sizes(model, shapes, limit)
    work, limit_of_work = 0, _WORK_BASE + _WORK_PER_PIXEL * pixels
    last_uses = {name: index for index, node in enumerate(model.graph.node) for name in node.input}
    alive = 0
    for index, node in enumerate(model.graph.node):
        alive += graph.add(node)
        if alive > _ALIVE * limit:
            raise SizeError("needs too much memory for an SSD of its input size")
        work += graph.work(node)
        if work > limit_of_work:
            raise SizeError("needs too many operations for an SSD of its input size")
        for name in {*node.input, *node.output}:
            if last_uses.get(name, index) <= index:
                alive -= graph.release(name)


class _Sizes:
    """Shapes and numbers of elements of the tensors of a graph."""

    def __init__(
        self, model: onnx.ModelProto, shapes: Mapping[str, Sequence[int]], limit: int
    ) -> None:
        self._limit = limit
        self._shapes = infer_shapes(model, shapes)
        self._elements: dict[str, int] = {
            tensor.name: prod(tensor.dims) for tensor in model.graph.initializer
        }
        self._elements.update({name: prod(shape) for name, shape in shapes.items()})
        self._computed: set[str] = set()

    def add(self, node: Any) -> int:
        """Determine the outputs of a node and return their elements."""
        total = 0
        for name in filter(None, node.output):
            shape = self._shapes.get(name)
            if shape is not None and None not in shape:
                count = prod(size for size in shape if size is not None)
            else:
                count = self._bound(node, name)
            if count > self._limit:
                raise SizeError(
                    f"has a tensor '{name}' of {count} elements, more than the {self._limit} that "
                    "an SSD of its input size needs"
                )
            self._elements[name] = count
            self._computed.add(name)
            total += count
        return total

    def release(self, name: str) -> int:
        """Return the elements that are free after the last use of a tensor."""
        if name not in self._computed:
            return 0
        self._computed.remove(name)
        return self._elements[name]

    def work(self, node: Any) -> int:
        """Return about how many multiplications a node takes."""
        elements: int = sum(self._elements.get(name, 0) for name in (*node.input, *node.output))
        outputs: int = self._elements.get(node.output[0], 0) if node.output else 0
        if node.op_type in _CONVOLUTIONS:
            weight = self._shapes.get(_input(node, _WEIGHT_INPUT.get(node.op_type, 1))) or ()
            if not weight or None in weight:
                raise SizeError(f"has an operator {node.op_type} with weights of unknown shape")
            per_output = prod(size or 1 for size in weight[1:])
            if node.op_type == "ConvTranspose":
                outputs = self._elements.get(_input(node, 0), 0)
            return elements + outputs * per_output
        if node.op_type in _PRODUCTS:
            first = self._shapes.get(_input(node, 0)) or ()
            depth = first[0 if attribute(node, "transA") == [1] else -1] if first else None
            if depth is None:
                raise SizeError(f"has an operator {node.op_type} of unknown shape")
            return elements + outputs * depth
        if node.op_type in _POOLS:
            kernel: int = prod(attribute(node, "kernel_shape"))
            return elements + outputs * kernel
        return elements

    def _bound(self, node: Any, name: str) -> int:
        """Return the largest number of elements of an output with an unknown shape."""
        growth = OPERATORS.get(node.op_type, Growth.SHAPE)
        known = [self._elements.get(item) for item in node.input if item]
        counts = [count for count in known if count is not None]
        if growth is not Growth.SHAPE and counts and len(counts) == len(known):
            bound: int = {
                Growth.FIRST: counts[0],
                Growth.SUM: sum(counts),
                Growth.PRODUCT: prod(counts),
                Growth.INDICES: 8 * max(1, sum(counts)),
            }[growth]
            if bound <= self._limit:
                return bound
        raise SizeError(f"has a tensor '{name}' whose size is not known before it runs")


def _input(node: Any, index: int) -> str:
    return str(node.input[index]) if index < len(node.input) else ""
