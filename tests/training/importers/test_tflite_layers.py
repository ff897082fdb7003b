"""TFLite operators that MobileNetV3 and feature pyramids need, compared with PyTorch's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from realtime_ssd_training.importers.nhwc_graph import Value
from realtime_ssd_training.importers.onnx_graph import run
from realtime_ssd_training.importers.tflite_graph import GraphBuilder
from realtime_ssd_training.importers.tflite_layers import CONVERTERS
from realtime_ssd_training.weights.tflite_file import Operator, Tensor
from torch.nn import functional

from realtime_ssd.core.errors import ModelError

IMAGE = np.random.default_rng(0).normal(size=(1, 3, 9, 14)).astype(np.float32) * 3
X = torch.from_numpy(IMAGE)
NONE: NDArray[np.float64] = np.zeros(0)


def tensor(values: NDArray[Any] | None, shape: tuple[int, ...] = ()) -> Tensor:
    return Tensor("t", shape, np.float32, values, NONE, NONE)


def convert(name: str, constant: list[int] | None, **options: Any) -> NDArray[np.float32]:
    """Convert one operator on the image, run it, and return N × C × H × W or N × C."""
    constants = None if constant is None else np.array(constant, np.int32)
    graph = GraphBuilder([tensor(None, (1, 9, 14, 3)), tensor(constants), tensor(None)])
    image = Value((1, 9, 14, 3), "image", channels_first=True)
    graph.values[0] = image
    inputs = (0,) if constant is None else (0, 1)
    value = CONVERTERS[name](graph, Operator(name, inputs, (2,), options))
    (result,) = run(graph.build(image, [value]), {"image": IMAGE})
    rows, columns = value.shape[1:3] if len(value.shape) == 4 else (1, 1)
    assert result.shape in ((1, 3, rows, columns), value.shape)
    return result


POOL = {"stride_w": 2, "stride_h": 2, "filter_w": 3, "filter_h": 3, "activation": 0}


def test_poolings() -> None:
    valid = {**POOL, "padding": 1}
    expected = functional.max_pool2d(X, 3, 2).numpy()
    np.testing.assert_allclose(convert("MAX_POOL_2D", None, **valid), expected)
    expected = functional.avg_pool2d(X, 3, 2).numpy()
    np.testing.assert_allclose(convert("AVERAGE_POOL_2D", None, **valid), expected, atol=1e-5)
    # "Same" pads one row at both ends of 9 rows, and one column at the end of 14 columns.
    padded = functional.pad(X, (0, 1, 1, 1))
    counts = functional.avg_pool2d(functional.pad(torch.ones_like(X), (0, 1, 1, 1)), 3, 2)
    expected = (functional.avg_pool2d(padded, 3, 2) / counts).numpy()
    same = convert("AVERAGE_POOL_2D", None, **POOL, padding=0)
    np.testing.assert_allclose(same, expected, atol=1e-5)


@pytest.mark.parametrize("keep", [0, 1])
def test_means_over_rows_and_columns(keep: int) -> None:
    result = convert("MEAN", [1, 2], keep_dims=keep)
    np.testing.assert_allclose(result.reshape(1, 3), IMAGE.mean((2, 3)), atol=1e-5)
    with pytest.raises(ModelError, match=r"averages the axes \[3\], not rows and columns"):
        convert("MEAN", [3], keep_dims=keep)


@pytest.mark.parametrize(("aligned", "half"), [(0, 1), (1, 0), (0, 0)])
def test_bilinear_resizes(aligned: int, half: int) -> None:
    result = convert("RESIZE_BILINEAR", [18, 28], align_corners=aligned, half_pixel_centers=half)
    if aligned or half:
        expected = functional.interpolate(X, (18, 28), mode="bilinear", align_corners=bool(aligned))
        np.testing.assert_allclose(result, expected.numpy(), atol=1e-5)
    else:  # every second pixel is one of the image
        np.testing.assert_allclose(result[..., ::2, ::2], IMAGE, atol=1e-5)


@pytest.mark.parametrize("half", [0, 1])
def test_nearest_resizes(half: int) -> None:
    result = convert("RESIZE_NEAREST_NEIGHBOR", [13, 28], align_corners=0, half_pixel_centers=half)
    mode = "nearest-exact" if half else "nearest"
    expected = functional.interpolate(X, (13, 28), mode=mode)
    np.testing.assert_array_equal(result, expected.numpy())


def test_hard_swish() -> None:
    np.testing.assert_allclose(
        convert("HARD_SWISH", None), functional.hardswish(X).numpy(), atol=1e-5
    )
