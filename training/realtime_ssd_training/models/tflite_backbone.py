"""Backbones from TFLite networks: ImageNet classifiers and SSDs, at full or smaller width.

The files have their normalization folded into the convolutions. It is restored with the statistics
of images, so that the outputs stay the same. A narrower network takes the strongest channels, and
its normalizations give them the mean and the spread that they had in the full network.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from realtime_ssd.core.errors import ModelError
from realtime_ssd.core.frames import Image
from realtime_ssd.core.spec import InputSpec
from realtime_ssd_training.models import SSD, create
from realtime_ssd_training.models.initial_weights import adapt_input, input_batches
from realtime_ssd_training.models.transplant import (
    Layer,
    layers_in_order,
    set_layer,
    set_statistics,
)
from realtime_ssd_training.weights.convolutions import Convolution, tflite_convolutions
from realtime_ssd_training.weights.tflite_file import TfliteFile, pixel_scaling, read_tflite

__all__ = ["load_tflite_backbone"]

_PARTS = ("backbone.stem", "backbone.blocks", "backbone.last")
_STEM_CHANNELS = 32  # of MobileNetV1 at width 1.0
_WITHOUT_RESIDUALS = ("ssd300_mobilenet_v1", "ssd300_mobilenet_v1_3x3", "ssd_mobilenet_v1_fpn")
Pair = tuple[Layer, Convolution]


def load_tflite_backbone(model: SSD, path: Path, images: Sequence[Image]) -> tuple[int, int]:
    """Load the backbone of a TFLite network.

    Args:
        model: Network to change; its extra layers and heads keep their weights.
        path: TFLite file of a network with the same kind of backbone, at width 1.0.
        images: Pictures that determine the statistics of the normalizations, for example 64 of
            the training set; H × W × 3 uint8, BGR.

    Returns:
        Number of convolutions loaded, and number of convolutions of the backbone.

    Raises:
        ModelError: If the file is damaged or its backbone does not fit.
    """
    file = read_tflite(path)
    chain = [layer for layer in layers_in_order(model) if layer.name.startswith(_PARTS)]
    pairs = _match(chain, tflite_convolutions(file))
    if not pairs:
        raise ModelError(
            f"'{path}' does not fit the backbone of '{model.architecture}': its convolutions are "
            "of another kind or narrower; use the same kind of network, or a smaller 'width'"
        )
    trained = _input_spec(file, path)
    batches = input_batches(images, model.spec.input)
    if all(layer.fits(item) for layer, item in pairs):
        _set_layers(pairs, trained, model.spec.input)
        set_statistics(model, [layer for layer, _ in pairs], batches)
    elif model.architecture in _WITHOUT_RESIDUALS:
        _load_strongest(model, pairs, trained, batches)
    else:
        raise ModelError(
            f"'{path}' does not fit the backbone of '{model.architecture}' at this width; set "
            "its option 'width' to 1.0"
        )
    return len(pairs), len(chain)


def _input_spec(file: TfliteFile, path: Path) -> InputSpec:
    """Return the input of the file."""
    scaling = pixel_scaling(file.tensors[file.inputs[0]]) if len(file.inputs) == 1 else None
    mean, scale = scaling or (127.5, 1 / 127.5)
    shape = file.tensors[file.inputs[0]].shape if file.inputs else ()
    if len(shape) != 4 or shape[3] != 3:
        raise ModelError(f"'{path}' has no image as its input; use an image classifier or an SSD")
    return InputSpec(shape[2], shape[1], "RGB", (mean,) * 3, (scale,) * 3)


def _match(chain: Sequence[Layer], convolutions: Sequence[Convolution]) -> list[Pair]:
    """Pair every layer with the next convolution of its kind; empty if one is missing.

    Convolutions beside the chain, such as heads, do not continue it with the same kind.
    """
    pairs: list[Pair] = []
    channels, position = 3, 0
    for item in convolutions:
        if position == len(chain):
            break
        layer = chain[position]
        outputs = layer.convolution.out_channels
        if layer.has_kind(item) and item.inputs == channels and outputs <= item.outputs:
            pairs.append((layer, item))
            channels, position = item.outputs, position + 1
    # The last layer of an SSD's file may be missing, because a classifier has another one.
    complete = position >= len(chain) - 1 and bool(pairs)
    return pairs if complete else []


def _set_layers(pairs: Sequence[Pair], trained: InputSpec, target: InputSpec) -> None:
    for index, (layer, item) in enumerate(pairs):
        weight, bias = torch.from_numpy(item.weight.copy()), torch.from_numpy(item.bias.copy())
        if index == 0:
            weight, shift = adapt_input(weight, trained, target)
            bias = bias + shift
        set_layer(layer, weight, bias)


def _load_strongest(
    model: SSD, pairs: Sequence[Pair], trained: InputSpec, batches: Sequence[Tensor]
) -> None:
    """Load the strongest channels of a wider chain of convolutions without residuals."""
    width = pairs[0][1].outputs / _STEM_CHANNELS
    full = create(model.architecture, model.spec.labels, **{**model.options, "width": width})
    wide = [layer for layer in layers_in_order(full) if layer.name.startswith(_PARTS)]
    wide_pairs = list(zip(wide, (item for _, item in pairs), strict=False))
    if not all(layer.fits(item) for layer, item in wide_pairs):
        raise ModelError(
            f"the backbone of the file is not that of '{model.architecture}' at any width"
        )
    _set_layers(wide_pairs, trained, model.spec.input)
    set_statistics(full, wide, batches)
    inputs = torch.arange(3)
    for index, (layer, _) in enumerate(pairs):
        source = wide[index]
        weight = source.convolution.weight.detach()
        if layer.is_depthwise:
            outputs = inputs
            selected = weight[outputs]
        else:
            count = layer.convolution.out_channels
            outputs = _strongest(
                [item.convolution.weight for item in wide[index : index + 3]], count
            )
            selected = weight[outputs][:, inputs]
        _copy(layer, source, selected, outputs)
        inputs = outputs
    _measure(model, [layer for layer, _ in pairs], batches)


def _strongest(weights: Sequence[Tensor], count: int) -> Tensor:
    """Return the channels of a layer with the largest effect on the following two layers.

    Args:
        weights: Weights of the layer, of the depthwise layer after it, and of the dense one after
            that, as far as they exist.
        count: Number of channels.
    """
    strength = weights[0].detach().flatten(1).norm(dim=1)
    if len(weights) > 1:
        strength = strength * weights[1].detach().flatten(1).norm(dim=1)
    if len(weights) > 2:
        strength = strength * weights[2].detach().flatten(2).norm(dim=(0, 2))
    indices: Tensor = strength.topk(count).indices
    return indices.sort().values


def _copy(layer: Layer, source: Layer, weight: Tensor, outputs: Tensor) -> None:
    """Copy a weight, and the factors of the normalization for some of its channels."""
    with torch.no_grad():
        layer.convolution.weight.copy_(weight)
        if layer.norm is None or source.norm is None:
            return
        for name in ("weight", "bias", "running_mean", "running_var"):
            getattr(layer.norm, name).copy_(getattr(source.norm, name)[outputs])


def _measure(model: SSD, layers: Sequence[Layer], batches: Sequence[Tensor]) -> None:
    """Replace the statistics of normalizations by those of images, without other changes."""
    norms: list[nn.BatchNorm2d] = [layer.norm for layer in layers if layer.norm is not None]
    training, momenta = model.training, [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.train()
        norm.reset_running_stats()
        norm.momentum = None  # the average of all batches
    with torch.no_grad():
        for batch in batches:
            model(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.train(training)
