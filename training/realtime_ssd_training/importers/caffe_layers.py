"""Caffe's layers, each written as ONNX nodes.

Source: the layer definitions of BVLC Caffe and of weiliu89's SSD branch (Normalize, Permute,
PriorBox, DetectionOutput).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil, prod

import numpy as np

from realtime_ssd_training.importers.caffe_boxes import prior_layer
from realtime_ssd_training.importers.caffe_net import Blob, Layer, Net
from realtime_ssd_training.importers.caffe_text import Message

__all__ = ["CONVERTERS", "flatten"]

Pair = tuple[int, int]


def _pair(options: Message, name: str, default: int, sides: str) -> Pair:
    """Read a size that is given for both directions, for each, or as two numbers."""
    both = [int(number) for number in options.numbers(name)] or [default]
    height = options.integer(f"{sides}_h", both[0])
    return height, options.integer(f"{sides}_w", both[-1])


def convolution(net: Net, layer: Layer, bottoms: Sequence[Blob]) -> Blob:
    """Convert Convolution (grouped, dilated, with or without bias)."""
    source, options = bottoms[0], layer.options("convolution_param")
    kernel = _pair(options, "kernel_size", 0, "kernel")
    stride = _pair(options, "stride", 1, "stride")
    pad = _pair(options, "pad", 0, "pad")
    dilation = _pair(options, "dilation", 1, "dilation")
    inputs, outputs = source.shape[1], options.integer("num_output", 0)
    groups = options.integer("group", inputs if "Depthwise" in layer.kind else 1)
    if not outputs or not all(kernel) or inputs % groups or outputs % groups:
        raise layer.refuse(f"turns {inputs} channels into {outputs} with kernel {kernel}")
    shapes: list[tuple[int, ...]] = [(outputs, inputs // groups, *kernel)]
    if options.flag("bias_term", True):
        shapes.append((outputs,))
    weights = [net.constant(blob) for blob in net.take(layer, *shapes)]
    name = net.add(
        "Conv",
        [source.name, *weights],
        kernel_shape=kernel,
        strides=stride,
        pads=[*pad, *pad],
        dilations=dilation,
        group=groups,
    )
    sizes = [
        (size + 2 * p - d * (k - 1) - 1) // s + 1
        for size, p, d, k, s in zip(source.shape[2:], pad, dilation, kernel, stride, strict=True)
    ]
    return Blob(name, (1, outputs, *sizes))


def batch_norm(net: Net, layer: Layer, bottoms: Sequence[Blob]) -> Blob:
    """Convert BatchNorm: stored sums divided by the stored count, no scale, no shift."""
    source = bottoms[0]
    channels = source.shape[1]
    mean, variance, count = net.take(layer, (channels,), (channels,), (1,))
    share = np.float32(1 / count[0] if count[0] else 0)
    ones, zeros = np.ones(channels, np.float32), np.zeros(channels, np.float32)
    weights = [net.constant(values) for values in (ones, zeros, mean * share, variance * share)]
    eps = layer.options("batch_norm_param").number("eps", 1e-5)
    return source.copy(name=net.add("BatchNormalization", [source.name, *weights], epsilon=eps))


def scale(net: Net, layer: Layer, bottoms: Sequence[Blob]) -> Blob:
    """Convert Scale: a factor and perhaps a shift per channel."""
    options, channels = layer.options("scale_param"), bottoms[0].shape[1]
    if len(bottoms) != 1 or options.integer("axis", 1) != 1 or options.integer("num_axes", 1) != 1:
        raise layer.refuse("scales something else than channels, which is not supported")
    shapes = [(channels,)] * (2 if options.flag("bias_term", False) else 1)
    name = bottoms[0].name
    for kind, values in zip(("Mul", "Add"), net.take(layer, *shapes), strict=False):
        name = net.add(kind, [name, net.constant(values.reshape(1, -1, 1, 1))])
    return bottoms[0].copy(name=name)


def relu(net: Net, layer: Layer, bottoms: Sequence[Blob]) -> Blob:
    """Convert ReLU, with a slope where the definition has one."""
    slope = layer.options("relu_param").number("negative_slope", 0)
    if slope:
        return bottoms[0].copy(name=net.add("LeakyRelu", [bottoms[0].name], alpha=slope))
    return bottoms[0].copy(name=net.add("Relu", [bottoms[0].name]))


def pooling(net: Net, layer: Layer, bottoms: Sequence[Blob]) -> Blob:
    """Convert Pooling; Caffe rounds sizes up, which is written as padding behind the image."""
    source, options = bottoms[0], layer.options("pooling_param")
    kind = options.text("pool", "MAX")
    if kind not in ("MAX", "AVE", "0", "1"):
        raise layer.refuse(f"pools by {kind}, only MAX and AVE are supported")
    image = (source.shape[2], source.shape[3])
    whole = options.flag("global_pooling", False)
    kernel = image if whole else _pair(options, "kernel_size", 0, "kernel")
    stride = _pair(options, "stride", 1, "stride")
    pad = _pair(options, "pad", 0, "pad")
    sizes, behind = zip(*map(_pooled, image, kernel, stride, pad), strict=True)
    average = kind in ("AVE", "1")
    if average and any(after > before for after, before in zip(behind, pad, strict=True)):
        raise layer.refuse("averages over cells cut off by the image, which is not supported")
    name = net.add(
        "AveragePool" if average else "MaxPool",
        [source.name],
        kernel_shape=kernel,
        strides=stride,
        pads=[*pad, *behind],
        **({"count_include_pad": 1} if average else {}),
    )
    return Blob(name, (*source.shape[:2], *sizes))


def _pooled(size: int, kernel: int, stride: int, pad: int) -> Pair:
    """Give the cells along one direction and the padding behind that makes them whole."""
    cells = ceil((size + 2 * pad - kernel) / stride) + 1
    if pad and (cells - 1) * stride >= size + pad:
        cells -= 1
    return cells, max(0, (cells - 1) * stride + kernel - size - pad)


def normalize(net: Net, layer: Layer, bottoms: Sequence[Blob]) -> Blob:
    """Convert Normalize: unit length over the channels, then a learned factor."""
    source, options = bottoms[0], layer.options("norm_param")
    shared = options.flag("channel_shared", True)
    (factors,) = net.take(layer, (1,) if shared else (source.shape[1],))
    axes = np.array([1, 2, 3] if options.flag("across_spatial", True) else [1])
    square = net.add("Mul", [source.name, source.name])
    total = net.add("ReduceSum", [square, net.constant(axes)], keepdims=1)
    least = net.constant(np.float32(options.number("eps", 1e-10)).reshape(1))
    length = net.add("Sqrt", [net.add("Add", [total, least])])
    unit = net.add("Div", [source.name, length])
    factor = net.constant(factors.reshape(1, -1, 1, 1))
    return source.copy(name=net.add("Mul", [unit, factor]))


def permute(net: Net, layer: Layer, bottoms: Sequence[Blob]) -> Blob:
    """Convert Permute; axes that are not named keep their order behind the named ones."""
    source = bottoms[0]
    named = [int(number) for number in layer.options("permute_param").numbers("order")]
    order = named + [axis for axis in range(len(source.shape)) if axis not in named]
    name = net.add("Transpose", [source.name], perm=order)
    return Blob(name, tuple(source.shape[axis] for axis in order))


def flatten(net: Net, layer: Layer, bottoms: Sequence[Blob]) -> Blob:
    """Convert Flatten from axis 1 to the end."""
    source = bottoms[0]
    if layer.options("flatten_param").integer("axis", 1) != 1:
        raise layer.refuse("flattens from another axis than 1, which is not supported")
    shape = (1, prod(source.shape[1:]))
    return source.copy(name=net.add("Flatten", [source.name], axis=1), shape=shape)


def reshape(net: Net, layer: Layer, bottoms: Sequence[Blob]) -> Blob:
    """Convert Reshape, in which 0 keeps a size and -1 takes what is left."""
    source = bottoms[0]
    wanted = [int(d) for d in layer.options("reshape_param").message("shape").numbers("dim")]
    sizes = [source.shape[i] if size == 0 else size for i, size in enumerate(wanted)]
    rest = -prod(sizes)
    if sizes.count(-1) > 1 or (-1 in sizes and prod(source.shape) % rest):
        raise layer.refuse(f"cannot turn {source.shape} into {wanted}")
    shape = tuple(prod(source.shape) // rest if size == -1 else size for size in sizes)
    name = net.add("Reshape", [source.name, net.constant(np.array(wanted, np.int64))])
    return source.copy(name=name, shape=shape)


def concat(net: Net, layer: Layer, bottoms: Sequence[Blob]) -> Blob:
    """Convert Concat; default boxes are joined outside the graph."""
    if all(blob.priors for blob in bottoms):
        return Blob("", (), priors=tuple(prior for blob in bottoms for prior in blob.priors))
    options, first = layer.options("concat_param"), bottoms[0]
    axis = options.integer("axis", options.integer("concat_dim", 1))
    total = sum(blob.shape[axis] for blob in bottoms)
    name = net.add("Concat", [blob.name for blob in bottoms], axis=axis)
    return first.copy(name=name, shape=(*first.shape[:axis], total, *first.shape[axis + 1 :]))


def eltwise(net: Net, layer: Layer, bottoms: Sequence[Blob]) -> Blob:
    """Convert Eltwise: sum, product or maximum of blobs of the same size."""
    options = layer.options("eltwise_param")
    kind = options.text("operation", "SUM")
    if options.numbers("coeff") or kind not in ("SUM", "PROD", "MAX"):
        raise layer.refuse("joins blobs in a way that is not supported")
    operator = {"SUM": "Sum", "PROD": "Mul", "MAX": "Max"}[kind]
    return bottoms[0].copy(name=net.add(operator, [blob.name for blob in bottoms]))


def same(_: Net, __: Layer, bottoms: Sequence[Blob]) -> Blob:
    """Convert layers that change nothing once training is over."""
    return bottoms[0]


def softmax(_: Net, __: Layer, bottoms: Sequence[Blob]) -> Blob:
    """Leave the softmax to the post-processing."""
    return bottoms[0].copy(activation="softmax")


def sigmoid(_: Net, __: Layer, bottoms: Sequence[Blob]) -> Blob:
    """Leave the sigmoid to the post-processing."""
    return bottoms[0].copy(activation="sigmoid")


def prior_box(_: Net, layer: Layer, bottoms: Sequence[Blob]) -> Blob:
    """Note the default boxes of a feature map."""
    maps, image = (blob.shape[2:4] for blob in bottoms)
    options = layer.options("prior_box_param")
    found = prior_layer(options, (maps[0], maps[1]), (image[0], image[1]))
    return Blob("", (), priors=(found,))


Converter = Callable[[Net, Layer, Sequence[Blob]], Blob]
CONVERTERS: dict[str, Converter] = {
    "BatchNorm": batch_norm,
    "Concat": concat,
    "Convolution": convolution,
    "ConvolutionDepthwise": convolution,
    "DepthwiseConvolution": convolution,
    "Dropout": same,
    "Eltwise": eltwise,
    "Flatten": flatten,
    "Normalize": normalize,
    "Permute": permute,
    "Pooling": pooling,
    "PriorBox": prior_box,
    "ReLU": relu,
    "Reshape": reshape,
    "Scale": scale,
    "Sigmoid": sigmoid,
    "Softmax": softmax,
    "Split": same,
}
