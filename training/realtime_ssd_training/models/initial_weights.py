"""Initial weights of a network from another detector: matching layers, classes by their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from realtime_ssd.core.frames import Image
from realtime_ssd.core.preprocess import preprocess
from realtime_ssd.core.spec import InputSpec, ModelSpec
from realtime_ssd_training.models.ssd import SSD
from realtime_ssd_training.models.transplant import (
    Layer,
    align,
    layers_in_order,
    set_layer,
    set_statistics,
)
from realtime_ssd_training.weights.convolutions import Convolution, HeadConvolutions

__all__ = [
    "InitialWeights",
    "adapt_first_layer",
    "adapt_input",
    "input_batches",
    "transfer_graph",
    "transfer_weights",
]

_BATCH = 16


@dataclass(frozen=True, slots=True)
class InitialWeights:
    """What a network received from a file.

    Attributes:
        loaded: Number of tensors with weights of the file.
        total: Number of tensors of the network.
        new_layers: Parts of the network that keep random weights, for example "score_heads".
        classes: Classes whose scores were taken over by name.
    """

    loaded: int
    total: int
    new_layers: tuple[str, ...]
    classes: tuple[str, ...] = ()


def transfer_weights(model: SSD, weights: Mapping[str, Tensor], spec: ModelSpec) -> InitialWeights:
    """Load every tensor of the same name and shape, and other score heads class by class.

    Args:
        model: Network to change; heads for unknown classes keep their random weights.
        weights: Tensors by name in a network of this project.
        spec: Specification of that network.
    """
    current = model.state_dict()
    matching = {k: v for k, v in weights.items() if k in current and v.shape == current[k].shape}
    shared = _shared_classes(spec, model.spec)
    by_class = {
        name: _by_class(current[name], value, shared, spec, model.spec)
        for name, value in weights.items()
        if name in current and name not in matching and _is_score_output(name, value, spec)
        if _has_same_boxes(value, current[name], spec, model.spec)
    }
    adapted = adapt_first_layer(matching, _first_layer(model), spec.input, model.spec.input)
    model.load_state_dict({**adapted, **by_class}, strict=False)
    names = tuple(model.spec.labels[new] for _, new in shared if new) if by_class else ()
    new = _parts(current.keys() - matching.keys())
    return InitialWeights(len(matching), len(current), new, names)


def _first_layer(model: SSD) -> str:
    """Return the name of the first convolution."""
    return next(k for k, v in model.state_dict().items() if v.ndim == 4).removesuffix(".weight")


def _is_score_output(name: str, value: Tensor, spec: ModelSpec) -> bool:
    """Return whether a tensor has one row for each box and class of the last layer of a head."""
    if not name.startswith("score_heads."):
        return False
    counts = [len(layer.sizes) for layer in spec.boxes.layers]
    level = int(name.split(".")[1])
    return level < len(counts) and value.shape[:1] == (counts[level] * spec.num_classes,)


def _has_same_boxes(old: Tensor, new: Tensor, spec: ModelSpec, target: ModelSpec) -> bool:
    boxes = old.shape[0] // spec.num_classes
    return new.shape == (boxes * target.num_classes, *old.shape[1:])


def _shared_classes(old: ModelSpec, new: ModelSpec) -> list[tuple[int, int]]:
    """Return the columns of classes that both networks have, the background included."""
    columns = {label.casefold(): index for index, label in enumerate(old.labels)}
    pairs = [(columns.get(label.casefold()), k) for k, label in enumerate(new.labels)]
    return [(index, k) for index, k in pairs if index is not None]


def _by_class(
    current: Tensor,
    value: Tensor,
    shared: Sequence[tuple[int, int]],
    old: ModelSpec,
    new: ModelSpec,
) -> Tensor:
    """Return a score output with the rows of shared classes replaced."""
    rest = current.shape[1:]
    result = current.clone().view(-1, new.num_classes, *rest)
    source = value.view(-1, old.num_classes, *rest)
    for old_column, new_column in shared:
        result[:, new_column] = source[:, old_column]
    return result.view(-1, *rest)


def _parts(names: set[str]) -> tuple[str, ...]:
    """Summarize tensor names by the parts of the network they are in."""
    parts = set()
    for name in names:
        first, second, *_ = [*name.split("."), ""]
        parts.add(f"{first}.{second}" if first == "backbone" else first)
    return tuple(sorted(parts))


def adapt_first_layer(
    tensors: Mapping[str, Tensor], layer: str, trained: InputSpec, target: InputSpec
) -> dict[str, Tensor]:
    """Rewrite the first layer for another input.

    With x = (pixel - mean) * scale for both inputs, w * x of the file equals w' * x of the network
    plus a constant, except at the zero padding, which represents a different mean.

    Args:
        tensors: Weights by name.
        layer: Name of the first convolution; its normalization is the next layer of a sequence.
        trained: Input of the weights.
        target: Input of the network.
    """
    adapted = dict(tensors)
    if f"{layer}.weight" not in adapted:
        return adapted
    weight, shift = adapt_input(adapted[f"{layer}.weight"], trained, target)
    adapted[f"{layer}.weight"] = weight
    running_mean = layer.removesuffix(".0") + ".1.running_mean"
    if f"{layer}.bias" in adapted:
        adapted[f"{layer}.bias"] = adapted[f"{layer}.bias"] + shift
    elif running_mean in adapted:
        adapted[running_mean] = adapted[running_mean] - shift
    return adapted


def adapt_input(weight: Tensor, trained: InputSpec, target: InputSpec) -> tuple[Tensor, Tensor]:
    """Return the weight of a first layer for another input, and the constant to add to it."""
    mean, scale = torch.tensor(trained.mean), torch.tensor(trained.scale)
    if trained.channels != target.channels:
        weight, mean, scale = weight.flip(1), mean.flip(0), scale.flip(0)
    offset = scale * (torch.tensor(target.mean) - mean)
    shift = (weight * offset.view(1, 3, 1, 1)).sum(dim=(1, 2, 3))
    return weight * (scale / torch.tensor(target.scale)).view(1, 3, 1, 1), shift


def transfer_graph(
    model: SSD, graph: HeadConvolutions, spec: ModelSpec, images: Sequence[Image]
) -> InitialWeights:
    """Load the convolutions of a graph into the layers of the same kind and size, in order.

    Args:
        model: Network to change.
        graph: Convolutions of another detector.
        spec: Specification of that detector.
        images: Pictures that determine the statistics of normalizations, for example 64 of the
            training set; H × W × 3 uint8, BGR.
    """
    layers = layers_in_order(model)
    pairs: list[tuple[Layer, Convolution]] = []
    for prefix, convolutions in (
        ("backbone.", graph.backbone),
        ("score_heads.", graph.scores if spec.num_classes == model.spec.num_classes else ()),
        ("offset_heads.", graph.offsets),
    ):
        part = [layer for layer in layers if layer.name.startswith(prefix)]
        pairs += align(part, convolutions)
    if not pairs or pairs[0][0] is not layers[0]:
        return InitialWeights(0, len(layers), _parts(set(model.state_dict())))
    for index, (layer, item) in enumerate(pairs):
        weight, bias = torch.from_numpy(item.weight), torch.from_numpy(item.bias)
        if index == 0:
            weight, shift = adapt_input(weight, spec.input, model.spec.input)
            bias = bias + shift
        set_layer(layer, weight, bias)
    set_statistics(model, [layer for layer, _ in pairs], input_batches(images, model.spec.input))
    new = {layer.name for layer in layers} - {layer.name for layer, _ in pairs}
    return InitialWeights(len(pairs), len(layers), _parts(new))


def input_batches(images: Sequence[Image], spec: InputSpec) -> list[Tensor]:
    """Return images as batches of the input of a network."""
    return [
        torch.from_numpy(
            np.stack([preprocess(image, spec) for image in images[start : start + _BATCH]])
        )
        for start in range(0, len(images), _BATCH)
    ]
