"""Weights of another framework's graph in a network of this project.

Such graphs have their normalization folded into the convolutions. Here every convolution keeps its
normalization, which is set so that the outputs are those of the graph and that training continues
with realistic statistics.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from realtime_ssd_training.models.ssd import SSD
from realtime_ssd_training.weights.convolutions import Convolution

__all__ = ["Layer", "align", "layers_in_order", "set_layer", "set_statistics"]


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """A convolution of a network, with the normalization of its output if there is one.

    Attributes:
        name: Name of the convolution in the network.
        convolution: The convolution.
        norm: The batch normalization.
    """

    name: str
    convolution: nn.Conv2d
    norm: nn.BatchNorm2d | None

    @property
    def is_depthwise(self) -> bool:
        """Whether every channel has its own kernel."""
        return self.convolution.groups == self.convolution.in_channels > 1

    def has_kind(self, other: Convolution) -> bool:
        """Return whether a convolution has the same kernel size, stride and grouping."""
        same_kernel = tuple(self.convolution.weight.shape[2:]) == other.weight.shape[2:]
        same_stride = self.convolution.stride[0] == other.stride
        return same_kernel and same_stride and self.is_depthwise == other.is_depthwise

    def fits(self, other: Convolution) -> bool:
        """Return whether a convolution is of the same kind and size."""
        return self.has_kind(other) and tuple(self.convolution.weight.shape) == other.weight.shape


def layers_in_order(model: SSD, *, side: int = 0) -> list[Layer]:
    """Return the convolutions of a network in the order of their execution.

    Args:
        model: The network.
        side: Rows and columns of the image for the measurement; those of the network if 0.
    """
    names = {module: name for name, module in model.named_modules()}
    order: list[tuple[nn.Conv2d, int]] = []
    norms: dict[int, nn.BatchNorm2d] = {}
    kept: list[Tensor] = []  # keeps tensors alive, so that no two have the same id

    def on_conv(module: nn.Module, _: object, output: Tensor) -> None:
        kept.append(output)
        if isinstance(module, nn.Conv2d):
            order.append((module, id(output)))

    def on_norm(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(module, nn.BatchNorm2d):
            norms[id(inputs[0])] = module

    size = model.spec.input
    shape = (1, 3, side or size.height, side or size.width)
    _run_with_hooks(model, on_conv, on_norm, [torch.zeros(shape)])
    return [Layer(names[conv], conv, norms.get(key)) for conv, key in order]


def _run_with_hooks(
    model: SSD,
    on_conv: Callable[..., None],
    on_norm: Callable[..., None],
    batches: Sequence[Tensor],
) -> None:
    handles = [
        module.register_forward_hook(on_conv if isinstance(module, nn.Conv2d) else on_norm)
        for module in model.modules()
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d)
    ]
    training = model.training
    try:
        model.eval()
        with torch.no_grad():
            for batch in batches:
                model(batch)
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()


def align(
    layers: Sequence[Layer],
    convolutions: Sequence[Convolution],
    fits: Callable[[Layer, Convolution], bool] = Layer.fits,
) -> list[tuple[Layer, Convolution]]:
    """Return the longest common subsequence of two sequences of convolutions.

    Args:
        layers: Layers of a network.
        convolutions: Convolutions of a graph.
        fits: Decides whether a layer can have the weights of a convolution.
    """
    rows, columns = len(layers), len(convolutions)
    length = [[0] * (columns + 1) for _ in range(rows + 1)]
    for i in reversed(range(rows)):
        for j in reversed(range(columns)):
            if fits(layers[i], convolutions[j]):
                length[i][j] = length[i + 1][j + 1] + 1
            else:
                length[i][j] = max(length[i + 1][j], length[i][j + 1])
    pairs, i, j = [], 0, 0
    while i < rows and j < columns:
        if fits(layers[i], convolutions[j]) and length[i][j] == length[i + 1][j + 1] + 1:
            pairs.append((layers[i], convolutions[j]))
            i, j = i + 1, j + 1
        elif length[i + 1][j] >= length[i][j + 1]:
            i += 1
        else:
            j += 1
    return pairs


def set_layer(layer: Layer, weight: Tensor, bias: Tensor) -> None:
    """Set a layer so that it computes `weight` * x + `bias`, normalization included."""
    with torch.no_grad():
        layer.convolution.weight.copy_(weight)
        if layer.norm is None:
            if layer.convolution.bias is not None:
                layer.convolution.bias.copy_(bias)
            return
        if layer.convolution.bias is not None:
            layer.convolution.bias.zero_()
        _normalize_to(layer.norm, torch.zeros_like(bias), torch.ones_like(bias), bias)


def _normalize_to(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor, shift: Tensor) -> None:
    """Set statistics of a normalization, and its factors so that it only adds a shift."""
    if norm.running_mean is None or norm.running_var is None:
        return
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)
    norm.weight.copy_(torch.sqrt(variance + norm.eps))
    norm.bias.copy_(shift + mean)


def set_statistics(model: SSD, layers: Sequence[Layer], batches: Sequence[Tensor]) -> None:
    """Set the statistics of normalizations to those of some images, without changing any output.

    Args:
        model: The network.
        layers: Layers that `set_layer` changed.
        batches: N × 3 × H × W images, normalized as the network expects.
    """
    wanted = {layer.norm: layer for layer in layers if layer.norm is not None}
    sums: dict[nn.Module, tuple[Tensor, Tensor, int]] = {}

    def ignore(*_: object) -> None:
        """Ignore a convolution."""

    def on_norm(module: nn.Module, inputs: tuple[Tensor, ...], _: Tensor) -> None:
        if module in wanted:
            values = inputs[0].double()
            total, squares, count = sums.get(module, (0.0, 0.0, 0))
            sums[module] = (
                total + values.sum((0, 2, 3)),
                squares + (values * values).sum((0, 2, 3)),
                count + values.numel() // values.shape[1],
            )

    _run_with_hooks(model, ignore, on_norm, batches)
    with torch.no_grad():
        for norm, layer in wanted.items():
            if norm in sums and layer.norm is not None and layer.norm.running_mean is not None:
                total, squares, count = sums[norm]
                mean = total / count
                variance = (squares / count - mean * mean).clamp(min=_LEAST_VARIANCE)
                shift = layer.norm.bias - layer.norm.running_mean
                _normalize_to(layer.norm, mean.float(), variance.float(), shift)


_LEAST_VARIANCE = 1e-5
"""Channels that are constant on all images keep a variance that later batches can exceed."""
