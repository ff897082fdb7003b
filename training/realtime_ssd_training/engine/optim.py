"""Optimizers, learning rate schedules and the moving average of the weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from realtime_ssd.core.errors import ModelError
from realtime_ssd_training.recipe import OptimizerConfig, ScheduleConfig

__all__ = [
    "ExponentialMovingAverage",
    "build_optimizer",
    "build_schedule",
    "load_optimizer_tensors",
    "optimizer_tensors",
    "set_learning_rate",
]


WARMUP_DIVISOR = 4
"""Warm-up is limited to the run's steps divided by this: with few images, runs are short."""


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> Optimizer:
    """Build the optimizer of a recipe.

    Args:
        model: Network to train; parameters without gradient are excluded.
        config: Optimizer settings.

    Returns:
        The optimizer; `set_learning_rate` sets the learning rate of each parameter group.
    """
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            # Scales and biases are one-dimensional; recent recipes exclude them from decay.
            decay = config.weight_decay if config.decay_all or parameter.ndim > 1 else 0.0
            scale = config.bias_lr if name.endswith("bias") else 1.0
            groups.setdefault((decay, scale), []).append(parameter)
    param_groups = [
        {"params": params, "weight_decay": decay, "lr": config.lr * scale, "lr_scale": scale}
        for (decay, scale), params in groups.items()
    ]
    if config.name == "adamw":
        return torch.optim.AdamW(param_groups, betas=(config.momentum, 0.999))
    return torch.optim.SGD(param_groups, lr=config.lr, momentum=config.momentum)


def set_learning_rate(optimizer: Optimizer, rate: float) -> None:
    """Set the learning rate of every parameter group of `build_optimizer`."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_scale"]


def build_schedule(
    config: ScheduleConfig, base: float, steps: int, epochs: int
) -> Callable[[int], float]:
    """Build the function from a step's index to its learning rate.

    Args:
        config: The schedule.
        base: Learning rate of the recipe.
        steps: Steps per epoch.
        epochs: Epochs of the run.

    Example:
        >>> rate = build_schedule(ScheduleConfig(milestones=(2,)), 0.1, steps=10, epochs=4)
        >>> round(rate(19), 3), round(rate(20), 3)
        (0.1, 0.01)
    """
    total = max(1, steps * epochs)
    warmup = min(config.warmup, total // WARMUP_DIVISOR)

    def rate(step: int) -> float:
        if config.kind == "cosine":
            cosine = (1 + math.cos(math.pi * min(1.0, step / total))) / 2
            factor = config.final + (1 - config.final) * cosine
        else:
            factor = config.gamma ** sum(step >= steps * epoch for epoch in config.milestones)
        if step < warmup:
            factor *= config.start + (1 - config.start) * step / warmup
        return base * factor

    return rate


def optimizer_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    """Return the state tensors of an optimizer by "parameter index.name"."""
    return {
        f"{index}.{name}": value
        for index, values in optimizer.state_dict()["state"].items()
        for name, value in values.items()
        if isinstance(value, Tensor)
    }


def load_optimizer_tensors(optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Restore the state of an optimizer.

    Args:
        optimizer: Optimizer to change.
        tensors: Output of `optimizer_tensors`.

    Raises:
        ModelError: If the tensors belong to another optimizer.
    """
    parameters = [value for group in optimizer.param_groups for value in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, _, name = key.partition(".")
        index = int(number) if number.isdigit() else len(parameters)
        if index >= len(parameters) or (value.ndim and value.shape != parameters[index].shape):
            raise ModelError("the optimizer state belongs to another recipe; start a new run")
        # In the memory format of the parameter; otherwise every later step would copy.
        restored = torch.empty_like(parameters[index], dtype=value.dtype) if value.ndim else value
        state.setdefault(index, {})[name] = restored.copy_(value) if value.ndim else restored
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


class ExponentialMovingAverage:
    """An exponential moving average (EMA) of all parameters and buffers of a network.

    The decay of the n-th update is (1 + n) / (10 + n) while that is less than `decay`, so that the
    random initial weights are soon forgotten.

    Args:
        model: Network to average; its tensors must remain the same objects.
        decay: Maximum decay.

    Attributes:
        tensors: The averages by name in the network.
        updates: Number of updates so far.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        current = model.state_dict()
        self.tensors = {name: value.clone() for name, value in current.items()}
        averaged = [name for name, value in current.items() if value.is_floating_point()]
        copied = [name for name in current if name not in set(averaged)]
        self._averaged = [self.tensors[k] for k in averaged], [current[k] for k in averaged]
        self._copied = [self.tensors[k] for k in copied], [current[k] for k in copied]

    def update(self) -> None:
        """Move the averages towards the current values; copy integer buffers."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(*self._averaged, 1 - decay)
        if self._copied[0]:
            torch._foreach_copy_(*self._copied)
