"""Optimisers, learning-rate schedules and the moving average of the weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from realtime_ssd.core.errors import ModelError
from realtime_ssd_training.recipe import OptimizerPart, SchedulePart

__all__ = [
    "Average",
    "build_optimizer",
    "learning_rate",
    "load_state",
    "set_rate",
    "state_tensors",
]


LONGEST_WARMUP = 4
"""A warm-up takes one such part of a run at most: with few images, runs are short."""


def build_optimizer(model: nn.Module, part: OptimizerPart) -> Optimizer:
    """Build the optimiser of a recipe.

    Args:
        model: Network whose weights move; those without gradient are left out.
        part: Its parameters.

    Returns:
        The optimiser; `set_rate` gives each of its groups its learning rate.
    """
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for name, value in model.named_parameters():
        if value.requires_grad:
            # Scales and biases have one dimension; newer recipes spare them the decay.
            decay = part.weight_decay if part.decay_all or value.ndim > 1 else 0.0
            scale = part.bias_lr if name.endswith("bias") else 1.0
            groups.setdefault((decay, scale), []).append(value)
    listed = [
        {"params": values, "weight_decay": decay, "lr": part.lr * scale, "lr_scale": scale}
        for (decay, scale), values in groups.items()
    ]
    if part.name == "adamw":
        return torch.optim.AdamW(listed, betas=(part.momentum, 0.999))
    return torch.optim.SGD(listed, lr=part.lr, momentum=part.momentum)


def set_rate(optimizer: Optimizer, rate: float) -> None:
    """Give every group of `build_optimizer` the learning rate of a step."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_scale"]


def learning_rate(
    part: SchedulePart, base: float, steps: int, epochs: int
) -> Callable[[int], float]:
    """Make the function from a step's number to its learning rate.

    Args:
        part: The schedule.
        base: Learning rate of the recipe.
        steps: Steps of an epoch.
        epochs: Epochs of the run.

    Example:
        >>> rate = learning_rate(SchedulePart(milestones=(2,)), 0.1, steps=10, epochs=4)
        >>> round(rate(19), 3), round(rate(20), 3)
        (0.1, 0.01)
    """
    total = max(1, steps * epochs)
    warmup = min(part.warmup, total // LONGEST_WARMUP)

    def rate(step: int) -> float:
        factor = 1.0
        if part.kind == "cosine":
            wave = (1 + math.cos(math.pi * min(1.0, step / total))) / 2
            factor = part.final + (1 - part.final) * wave
        else:
            factor = part.gamma ** sum(step >= steps * epoch for epoch in part.milestones)
        if step < warmup:
            factor *= part.start + (1 - part.start) * step / warmup
        return base * factor

    return rate


def state_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    """List everything an optimiser remembers about its weights, by "number.name"."""
    return {
        f"{number}.{name}": value
        for number, values in optimizer.state_dict()["state"].items()
        for name, value in values.items()
        if isinstance(value, Tensor)
    }


def load_state(optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give an optimiser its memory back.

    Args:
        optimizer: The optimiser.
        tensors: What `state_tensors` gave.

    Raises:
        ModelError: If it is the memory of another optimiser.
    """
    weights = [value for group in optimizer.param_groups for value in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, _, name = key.partition(".")
        place = int(number) if number.isdigit() else len(weights)
        if place >= len(weights) or (value.ndim and value.shape != weights[place].shape):
            raise ModelError("the optimiser's state belongs to another recipe; start a new run")
        # In memory as the weight is, or every later step would have to copy.
        kept = torch.empty_like(weights[place], dtype=value.dtype) if value.ndim else value
        state.setdefault(place, {})[name] = kept.copy_(value) if value.ndim else kept
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


class Average:
    """An exponential moving average of all weights and statistics of a network.

    The decay of the n-th update is (1 + n) / (10 + n) while that is less than `decay`, so that the
    random start is soon forgotten.

    Args:
        model: Network to follow; its tensors must stay the same objects.
        decay: Largest decay.

    Attributes:
        tensors: The averages, by the network's names.
        updates: Number of updates so far.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        now = model.state_dict()
        self.tensors = {name: value.clone() for name, value in now.items()}
        moving = [name for name, value in now.items() if value.is_floating_point()]
        counts = [name for name in now if name not in set(moving)]
        self._moving = [self.tensors[name] for name in moving], [now[name] for name in moving]
        self._counts = [self.tensors[name] for name in counts], [now[name] for name in counts]

    def update(self) -> None:
        """Move the averages towards the network's present values."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(*self._moving, 1 - decay)
        for ours, theirs in zip(*self._counts, strict=True):
            ours.copy_(theirs)
