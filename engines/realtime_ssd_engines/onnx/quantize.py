"""INT8 quantization with Q/DQ nodes, calibrated on images; for TensorRT and ONNX Runtime."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from realtime_ssd.core.errors import SourceError, UsageError
from realtime_ssd.core.preprocess import preprocess
from realtime_ssd.core.spec import InputSpec, attach_spec, read_spec
from realtime_ssd.sources.images import Images

__all__ = ["quantize"]

_log = logging.getLogger(__name__)

MAX_IMAGES = 64
_WEIGHTED_OPS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
PERCENTILE = 99.999  # of the activations; larger values are clipped


def quantize(model: Path, output: Path, calibration: Path, *, symmetric: bool = True) -> int:
    """Quantize a model statically: INT8 activations and per-channel INT8 weights.

    Args:
        model: FP32 ONNX file with its specification.
        output: ONNX file to write.
        calibration: Folder of images similar to those seen in production; the first 64 are used.
        symmetric: Whether to quantize for TensorRT, which requires activations with zero point 0
            and rejects INT32 biases. ONNX Runtime is twice as fast with asymmetric activations,
            because a ReLU is then free.

    Returns:
        Number of images used.

    Raises:
        UsageError: If the folder does not exist.
        SourceError: If none of its images can be read.
        ModelError: If the model has no specification.
    """
    from onnxruntime import quantization

    spec = read_spec(model, trust_model=True)  # the caller has decided
    if not calibration.is_dir():
        raise UsageError(f"'{calibration}' is not a folder of calibration images")
    tensors = _calibration_tensors(calibration, spec.input)
    network = onnx.load(str(model))
    _name_nodes(network.graph)
    settings = _tensorrt_settings(network.graph) if symmetric else _onnxruntime_settings()
    level = logging.getLogger().level
    logging.getLogger().setLevel(logging.ERROR)  # hides advice on pre-processing that is not needed
    try:
        with redirect_stdout(StringIO()):  # `quantize_static` prints its progress
            quantization.quantize_static(
                network,
                str(output),
                _DataReader(spec.input.name, tensors),
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=True,
                weight_type=quantization.QuantType.QInt8,
                **settings,
            )
    finally:
        logging.getLogger().setLevel(level)
    quantized = onnx.load(str(output))
    if symmetric:
        _leave_sums_of_convolutions(quantized.graph)
    attach_spec(quantized, spec)
    onnx.save(quantized, str(output))
    return len(tensors)


def _tensorrt_settings(graph: onnx.GraphProto) -> dict[str, Any]:
    """Return the keyword arguments of `quantize_static` for TensorRT.

    By NVIDIA's rules, only the inputs of convolutions, matrix products and residual additions are
    quantized. Q/DQ nodes at an output, as between a convolution and its ReLU, would round twice and
    keep the two from being fused.
    """
    from onnxruntime.quantization import QuantType

    constants = {item.name for item in graph.initializer}
    constants |= {node.output[0] for node in graph.node if node.op_type == "Constant"}
    additions = [node for node in graph.node if node.op_type == "Add"]
    return {
        "activation_type": QuantType.QInt8,
        "op_types_to_quantize": [*_WEIGHTED_OPS, "Add"],
        "nodes_to_exclude": [node.name for node in additions if constants & set(node.input)],
        "extra_options": {
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            "QuantizeBias": False,
            "OpTypesToExcludeOutputQuantization": [*_WEIGHTED_OPS, "Add"],
        },
    }


def _leave_sums_of_convolutions(graph: onnx.GraphProto) -> None:
    """Quantize only the residual input of an addition, not the output of the convolution before it.

    TensorRT then fuses the addition with the convolution.
    """
    producers = {name: node for node in graph.node for name in node.output}
    uses = Counter(name for node in graph.node for name in node.input)
    removed: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.op_type != "Add":
            continue
        pairs = [pair for name in node.input if (pair := _pair_before(name, producers))]
        if len(pairs) < len(node.input):
            continue
        for index, (quantize_node, dequantize_node) in enumerate(pairs):
            source = quantize_node.input[0]
            convolution = producers.get(source)
            is_sum = convolution is not None and convolution.op_type in _WEIGHTED_OPS
            if is_sum and uses[source] == uses[node.input[index]] == 1:
                node.input[index] = source
                removed += [quantize_node, dequantize_node]
                break
    for node in removed:
        graph.node.remove(node)


def _pair_before(
    name: str, producers: dict[str, onnx.NodeProto]
) -> tuple[onnx.NodeProto, onnx.NodeProto] | None:
    """Return the Q and DQ nodes that produce a tensor; None if other nodes do."""
    dequantize_node = producers.get(name)
    if dequantize_node is None or dequantize_node.op_type != "DequantizeLinear":
        return None
    quantize_node = producers.get(dequantize_node.input[0])
    return None if quantize_node is None else (quantize_node, dequantize_node)


def _name_nodes(graph: onnx.GraphProto) -> None:
    """Name the nodes that have no name of their own, by which they could not be excluded."""
    names: set[str] = set()
    for number, node in enumerate(graph.node):
        if not node.name or node.name in names:
            node.name = f"{node.op_type}_{number}_{node.name}"
        names.add(node.name)


def _onnxruntime_settings() -> dict[str, Any]:
    """Return the keyword arguments of `quantize_static` for ONNX Runtime."""
    from onnxruntime.quantization import CalibrationMethod, QuantType

    return {
        "activation_type": QuantType.QUInt8,
        "calibrate_method": CalibrationMethod.Percentile,
        "extra_options": {"WeightSymmetric": True, "CalibPercentile": PERCENTILE},
    }


def _calibration_tensors(calibration: Path, spec: InputSpec) -> list[NDArray[np.float32]]:
    """Return the network inputs of the first readable images; unreadable ones are reported."""
    source = Images(calibration)
    tensors: list[NDArray[np.float32]] = []
    try:
        while len(tensors) < MAX_IMAGES and (frame := source.read()) is not None:
            tensors.append(preprocess(frame.image, spec)[None])
    except SourceError as error:  # raised after the last image
        if not tensors:
            raise
        _log.warning("calibration: %s", error)
    return tensors


class _DataReader:
    """Implements ONNX Runtime's `CalibrationDataReader`."""

    def __init__(self, name: str, tensors: list[NDArray[np.float32]]) -> None:
        self._name = name
        self._tensors: Iterator[NDArray[np.float32]] = iter(tensors)

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        """Return the next model input, or None after the last one."""
        tensor = next(self._tensors, None)
        return None if tensor is None else {self._name: tensor}
