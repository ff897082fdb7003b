"""Single Caffe layers, each compared with the same operation of PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from realtime_ssd_training.importers.caffe_definition import parse_definition
from realtime_ssd_training.importers.caffe_graph import Blob, GraphBuilder
from realtime_ssd_training.importers.caffe_layers import CONVERTERS
from realtime_ssd_training.importers.onnx_graph import run
from torch.nn import functional

from realtime_ssd.core.errors import ModelError

Array = NDArray[np.float32]


def random_array(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def convert(
    kind: str, options: str, shapes: list[tuple[int, ...]], weights: list[Array]
) -> tuple[GraphBuilder, Blob]:
    (layer,) = parse_definition(f'layer {{ name: "x" type: "{kind}" {options} }}').layer
    graph = GraphBuilder({"x": weights} if weights else {})
    bottoms = [Blob(f"in{index}", shape) for index, shape in enumerate(shapes)]
    blob = CONVERTERS[kind](graph, layer, bottoms)
    assert isinstance(blob, Blob)
    return graph, blob


def convert_and_run(
    kind: str, options: str, inputs: list[Array], weights: list[Array] | None = None
) -> Array:
    """Convert a layer, run it and check that its declared shape is the actual one."""
    graph, blob = convert(kind, options, [array.shape for array in inputs], weights or [])
    bottoms = [Blob(f"in{index}", array.shape) for index, array in enumerate(inputs)]
    feeds = {bottom.name: array for bottom, array in zip(bottoms, inputs, strict=True)}
    (result,) = run(graph.build(bottoms, [blob]), feeds)
    assert result.shape == blob.shape
    assert graph.used_layers == ({"x"} if weights else set())
    return result


def assert_close(actual: Array, expected: torch.Tensor) -> None:
    np.testing.assert_allclose(actual, expected.numpy(), rtol=1e-4, atol=1e-5)


def conv2d(image: Array, weight: Array, bias: Array | None = None, **settings: Any) -> torch.Tensor:
    return functional.conv2d(
        torch.from_numpy(image),
        torch.from_numpy(weight),
        None if bias is None else torch.from_numpy(bias),
        **settings,
    )


@pytest.mark.parametrize(
    ("options", "kernel", "settings"),
    [
        ("kernel_size: 3", (3, 3), {}),
        ("kernel_size: 3 pad: 1 stride: 2", (3, 3), {"padding": 1, "stride": 2}),
        ("kernel_size: 3 kernel_size: 5", (3, 5), {}),
        ("kernel_h: 3 kernel_w: 5", (3, 5), {}),
        (
            "kernel_size: 3 pad_h: 1 pad_w: 2 stride_h: 1 stride_w: 3",
            (3, 3),
            {"padding": (1, 2), "stride": (1, 3)},
        ),
        ("kernel_size: 3 dilation: 2 pad: 6", (3, 3), {"dilation": 2, "padding": 6}),
        ("kernel_size: 1 group: 2", (1, 1), {"groups": 2}),
    ],
)
@pytest.mark.parametrize("bias", [True, False])
def test_convolution(
    options: str, kernel: tuple[int, int], settings: dict[str, Any], bias: bool
) -> None:
    image = random_array(1, 4, 9, 11)
    weights = [random_array(6, 4 // settings.get("groups", 1), *kernel, seed=1)]
    weights += [random_array(6, seed=2)] if bias else []
    options += "" if bias else " bias_term: false"
    actual = convert_and_run(
        "Convolution", f"convolution_param {{ num_output: 6 {options} }}", [image], weights
    )
    assert_close(actual, conv2d(image, *weights, **settings))


@pytest.mark.parametrize("kind", ["ConvolutionDepthwise", "DepthwiseConvolution"])
def test_depthwise_convolution(kind: str) -> None:
    image, weight, bias = random_array(1, 4, 5, 5), random_array(4, 1, 3, 3), random_array(4)
    options = "convolution_param { num_output: 4 kernel_size: 3 }"
    expected = conv2d(image, weight, bias, groups=4)
    assert_close(convert_and_run(kind, options, [image], [weight, bias]), expected)


def test_depthwise_convolution_with_a_group() -> None:
    image, weight, bias = random_array(1, 4, 5, 5), random_array(4, 2, 3, 3), random_array(4)
    options = "convolution_param { num_output: 4 kernel_size: 3 group: 2 }"
    expected = conv2d(image, weight, bias, groups=2)
    assert_close(
        convert_and_run("ConvolutionDepthwise", options, [image], [weight, bias]), expected
    )


@pytest.mark.parametrize(
    "options",
    [
        "kernel_size: 3",
        "num_output: 6",
        "num_output: 6 kernel_size: 3 group: 3",
        "num_output: 7 kernel_size: 3 group: 2",
        "num_output: 6 kernel_h: 3",
    ],
)
def test_impossible_convolutions_are_refused(options: str) -> None:
    with pytest.raises(ModelError, match=r"layer 'x' \(Convolution\) turns 4 channels into"):
        convert(
            "Convolution", f"convolution_param {{ {options} }}", [(1, 4, 9, 9)], [random_array(1)]
        )


def test_batch_norm_divides_the_stored_sums() -> None:
    image, mean, variance = (
        random_array(1, 3, 4, 4),
        random_array(3),
        np.array([1, 2, 3], np.float32),
    )
    weights = [mean, variance, np.array([4], np.float32)]
    x, mean_tensor, variance_tensor = map(torch.from_numpy, (image, mean / 4, variance / 4))
    expected = functional.batch_norm(x, mean_tensor, variance_tensor, eps=0.5)
    assert_close(
        convert_and_run("BatchNorm", "batch_norm_param { eps: 0.5 }", [image], weights), expected
    )


def test_batch_norm_without_a_count_has_zero_statistics() -> None:
    image, weights = (
        random_array(1, 3, 4, 4),
        [random_array(3), random_array(3), np.zeros(1, np.float32)],
    )
    actual = convert_and_run("BatchNorm", "batch_norm_param { eps: 0.25 }", [image], weights)
    np.testing.assert_allclose(actual, image * 2, rtol=1e-5)


def test_scale_with_and_without_a_shift() -> None:
    image, factor, shift = random_array(1, 3, 4, 4), random_array(3), random_array(3, seed=1)
    scaled = image * factor.reshape(1, 3, 1, 1)
    np.testing.assert_allclose(convert_and_run("Scale", "", [image], [factor]), scaled, rtol=1e-6)
    actual = convert_and_run("Scale", "scale_param { bias_term: true }", [image], [factor, shift])
    np.testing.assert_allclose(actual, scaled + shift.reshape(1, 3, 1, 1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("options", ["axis: 0", "num_axes: 2"])
def test_scale_of_other_axes_is_refused(options: str) -> None:
    with pytest.raises(ModelError, match="scales other axes"):
        convert("Scale", f"scale_param {{ {options} }}", [(1, 3, 4, 4)], [random_array(3)])


def test_scale_of_two_inputs_is_refused() -> None:
    with pytest.raises(ModelError, match="scales other axes"):
        convert("Scale", "", [(1, 3, 4, 4), (1, 3)], [random_array(3)])


def test_relu_with_and_without_a_slope() -> None:
    image = random_array(1, 3, 4, 4)
    np.testing.assert_array_equal(convert_and_run("ReLU", "", [image]), np.maximum(image, 0))
    leaky = convert_and_run("ReLU", "relu_param { negative_slope: 0.25 }", [image])
    np.testing.assert_allclose(leaky, np.where(image > 0, image, image / 4), rtol=1e-6)


def test_relu6_and_silence() -> None:
    image = random_array(1, 3, 4, 4) * 9
    np.testing.assert_array_equal(convert_and_run("ReLU6", "", [image]), image.clip(0, 6))
    assert convert("Silence", "", [image.shape], [])[1].name == "in0"


@pytest.mark.parametrize(
    ("options", "axis", "points"),
    [
        ("", 1, [2, 4]),
        ("slice_dim: 2 slice_point: 1 slice_point: 2", 2, [1, 2]),
        ("axis: -1 slice_point: 3 slice_point: 4", 3, [3, 4]),
    ],
)
def test_slice_has_an_output_for_each_part(options: str, axis: int, points: list[int]) -> None:
    image = random_array(1, 6, 5, 7)
    text = f'layer {{ type: "Slice" top: "a" top: "b" top: "c" slice_param {{ {options} }} }}'
    (layer,) = parse_definition(text).layer
    graph, bottom = GraphBuilder({}), Blob("in", image.shape)
    blobs = CONVERTERS["Slice"](graph, layer, [bottom])
    assert isinstance(blobs, list)
    expected = np.split(image, points, axis)
    for blob, actual, part in zip(
        blobs, run(graph.build([bottom], blobs), {"in": image}), expected, strict=True
    ):
        assert blob.shape == actual.shape
        np.testing.assert_array_equal(actual, part)


@pytest.mark.parametrize("options", ["axis: 2", "axis: 2 slice_point: 5", "slice_point: 9"])
def test_impossible_slices_are_refused(options: str) -> None:
    text = f'layer {{ name: "x" type: "Slice" top: "a" top: "b" slice_param {{ {options} }} }}'
    (layer,) = parse_definition(text).layer
    with pytest.raises(ModelError, match=r"layer 'x' \(Slice\) slices"):
        CONVERTERS["Slice"](GraphBuilder({}), layer, [Blob("in", (1, 6, 5, 7))])


@pytest.mark.parametrize("size", [(9, 11), (10, 12), (8, 8)])
@pytest.mark.parametrize(
    ("options", "settings"),
    [
        ("kernel_size: 2 stride: 2", {"kernel_size": 2, "stride": 2}),
        ("kernel_size: 3 stride: 2", {"kernel_size": 3, "stride": 2}),
        ("kernel_size: 3 stride: 2 pad: 1", {"kernel_size": 3, "stride": 2, "padding": 1}),
        ("kernel_size: 2 stride: 2 pad: 1", {"kernel_size": 2, "stride": 2, "padding": 1}),
        ("kernel_h: 2 kernel_w: 3", {"kernel_size": (2, 3), "stride": 1}),
    ],
)
def test_max_pooling_rounds_sizes_up(
    size: tuple[int, int], options: str, settings: dict[str, Any]
) -> None:
    image = random_array(1, 2, *size)
    expected = functional.max_pool2d(torch.from_numpy(image), ceil_mode=True, **settings)
    assert_close(convert_and_run("Pooling", f"pooling_param {{ {options} }}", [image]), expected)


def test_average_pooling() -> None:
    image = random_array(1, 2, 8, 8)
    options = "pooling_param { pool: AVE kernel_size: 2 stride: 2 }"
    expected = functional.avg_pool2d(torch.from_numpy(image), 2, 2)
    assert_close(convert_and_run("Pooling", options, [image]), expected)
    options = "pooling_param { pool: AVE kernel_size: 3 stride: 1 pad: 1 }"
    expected = functional.avg_pool2d(torch.from_numpy(image), 3, 1, 1)
    assert_close(convert_and_run("Pooling", options, [image]), expected)


def test_global_pooling_covers_the_feature_map() -> None:
    image = random_array(1, 2, 5, 7)
    actual = convert_and_run("Pooling", "pooling_param { pool: AVE global_pooling: true }", [image])
    np.testing.assert_allclose(actual, image.mean((2, 3), keepdims=True), rtol=1e-5, atol=1e-6)


def test_average_pooling_beyond_the_image_is_refused() -> None:
    with pytest.raises(ModelError, match="exceed the image"):
        convert(
            "Pooling", "pooling_param { pool: AVE kernel_size: 2 stride: 2 }", [(1, 2, 8, 7)], []
        )


@pytest.mark.parametrize(
    ("options", "count", "axes"),
    [
        ("", 1, (1, 2, 3)),
        ("channel_shared: false", 3, (1, 2, 3)),
        ("across_spatial: false channel_shared: false eps: 0.5", 3, (1,)),
    ],
)
def test_normalize(options: str, count: int, axes: tuple[int, ...]) -> None:
    image, factors = random_array(1, 3, 4, 4), random_array(count, seed=1)
    eps = 0.5 if "eps" in options else 1e-10
    length = np.sqrt((image**2).sum(axes, keepdims=True) + eps)
    actual = convert_and_run("Normalize", f"norm_param {{ {options} }}", [image], [factors])
    expected = image / length * factors.reshape(1, -1, 1, 1)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def test_permute_appends_the_axes_that_are_not_listed() -> None:
    image = random_array(1, 2, 3, 4)
    actual = convert_and_run("Permute", "permute_param { order: 0 order: 3 }", [image])
    np.testing.assert_array_equal(actual, image.transpose(0, 3, 1, 2))


def test_flatten_and_reshape() -> None:
    image = random_array(1, 2, 3, 4)
    np.testing.assert_array_equal(convert_and_run("Flatten", "", [image]), image.reshape(1, 24))
    options = "reshape_param { shape { dim: 0 dim: 3 dim: -1 } }"
    np.testing.assert_array_equal(
        convert_and_run("Reshape", options, [image]), image.reshape(1, 3, 8)
    )
    options = "reshape_param { shape { dim: 0 dim: 24 } }"
    np.testing.assert_array_equal(
        convert_and_run("Reshape", options, [image]), image.reshape(1, 24)
    )


@pytest.mark.parametrize("dims", [(0, 5, -1), (-1, -1)])
def test_impossible_reshapes_are_refused(dims: tuple[int, ...]) -> None:
    options = "".join(f" dim: {dim}" for dim in dims)
    with pytest.raises(ModelError, match=r"cannot turn \(1, 2, 3, 4\) into"):
        convert("Reshape", f"reshape_param {{ shape {{ {options} }} }}", [(1, 2, 3, 4)], [])


def test_flatten_from_another_axis_is_refused() -> None:
    with pytest.raises(ModelError, match="flattens from another axis"):
        convert("Flatten", "flatten_param { axis: 2 }", [(1, 2, 3, 4)], [])


@pytest.mark.parametrize(
    ("options", "axis"),
    [("", 1), ("axis: 2", 2), ("concat_dim: 3", 3), ("axis: -1", -1), ("concat_dim: 2 axis: 3", 3)],
)
def test_concat(options: str, axis: int) -> None:
    arrays = [random_array(1, 2, 3, 4, seed=seed) for seed in range(3)]
    actual = convert_and_run("Concat", f"concat_param {{ {options} }}", arrays)
    np.testing.assert_array_equal(actual, np.concatenate(arrays, axis))


@pytest.mark.parametrize(("operation", "function"), [("SUM", np.add), ("PROD", np.multiply)])
def test_eltwise(operation: str, function: Any) -> None:
    a, b = random_array(1, 2, 3, 4), random_array(1, 2, 3, 4, seed=1)
    actual = convert_and_run("Eltwise", f"eltwise_param {{ operation: {operation} }}", [a, b])
    np.testing.assert_allclose(actual, function(a, b), rtol=1e-6)


def test_eltwise_maximum_and_default() -> None:
    a, b = random_array(1, 2, 3, 4), random_array(1, 2, 3, 4, seed=1)
    actual = convert_and_run("Eltwise", "eltwise_param { operation: 2 }", [a, b])
    np.testing.assert_array_equal(actual, np.maximum(a, b))
    np.testing.assert_allclose(convert_and_run("Eltwise", "", [a, b]), a + b, rtol=1e-6)
    with pytest.raises(ModelError, match="with coefficients"):
        convert("Eltwise", "eltwise_param { coeff: 1 coeff: -1 }", [a.shape, b.shape], [])


@pytest.mark.parametrize("kind", ["Dropout", "Split"])
def test_layers_without_effect_return_their_input(kind: str) -> None:
    graph, blob = convert(kind, "", [(1, 2, 3, 4)], [])
    assert (blob.name, graph.nodes) == ("in0", [])


@pytest.mark.parametrize(("kind", "activation"), [("Softmax", "softmax"), ("Sigmoid", "sigmoid")])
def test_activations_are_left_to_the_post_processing(kind: str, activation: str) -> None:
    graph, blob = convert(kind, "", [(1, 2, 3, 4)], [])
    assert (blob.name, blob.activation, graph.nodes) == ("in0", activation, [])


def prior_boxes(options: str) -> tuple[NDArray[np.floating], Any]:
    _, blob = convert(
        "PriorBox", f"prior_box_param {{ {options} }}", [(1, 8, 2, 3), (1, 3, 100, 120)], []
    )
    (prior_box,) = blob.prior_boxes
    return prior_box.layer.boxes() * [120, 100, 120, 100], prior_box


def test_prior_boxes_of_a_cell_have_the_order_of_caffe() -> None:
    boxes, prior_box = prior_boxes("min_size: 16 max_size: 25 aspect_ratio: 4 aspect_ratio: 1")
    np.testing.assert_allclose(
        boxes[:4],
        [[20, 25, 16, 16], [20, 25, 20, 20], [20, 25, 32, 8], [20, 25, 8, 32]],
        rtol=1e-5,
    )
    np.testing.assert_allclose(
        boxes[4::4, :2], [[60, 25], [100, 25], [20, 75], [60, 75], [100, 75]]
    )
    assert (prior_box.clip, prior_box.variances) == (False, (0.1,))


def test_prior_boxes_with_steps_offset_and_several_sizes() -> None:
    boxes, prior_box = prior_boxes(
        "min_size: 10 min_size: 20 aspect_ratio: 4 aspect_ratio: 4 flip: false clip: true "
        "step: 20 step_h: 50 step_w: 30 offset: 0 variance: 0.1 variance: 0.2"
    )
    sizes = [[10, 10], [20, 5], [20, 20], [40, 10]]
    np.testing.assert_allclose(boxes[:4, 2:], sizes, rtol=1e-5)
    np.testing.assert_allclose(
        boxes[::4, :2], [[0, 0], [30, 0], [60, 0], [0, 50], [30, 50], [60, 50]], rtol=1e-5
    )
    assert (prior_box.clip, prior_box.variances) == (True, (0.1, 0.2))


def test_prior_boxes_of_another_image_size() -> None:
    boxes, _ = prior_boxes("min_size: 10 img_size: 60")
    np.testing.assert_allclose(boxes[0], [20, 25, 20, 100 / 6], rtol=1e-5)
    boxes, _ = prior_boxes("min_size: 10 img_h: 50 img_w: 60 step_h: 10 step_w: 12")
    np.testing.assert_allclose(boxes[0], [12, 10, 20, 20], rtol=1e-5)


@pytest.mark.parametrize("options", ["max_size: 20", "min_size: 1 min_size: 2 max_size: 3"])
def test_prior_boxes_with_unequal_sizes_are_refused(options: str) -> None:
    with pytest.raises(ModelError, match="the two lists must have the same length"):
        prior_boxes(options)
