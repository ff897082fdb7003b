"""Optimisers, learning-rate schedules and the moving average of the weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from realtime_ssd.errors import ModelError
from training.recipe import OptimizerPart, SchedulePart

__all__ = ["Average", "build_optimizer", "learning_rate", "load_state", "state_tensors"]


def build_optimizer(model: nn.Module, part: OptimizerPart) -> Optimizer:
    """Build the optimiser of a recipe.

    Args:
        model: Network whose weights move; those without gradient are left out.
        part: Its parameters.
    """
    weights = [value for value in model.parameters() if value.requires_grad]
    # Scales and biases have one dimension; torchvision and newer recipes spare them the decay.
    free = [value for value in weights if value.ndim == 1 and not part.decay_all]
    taken = {id(value) for value in free}
    groups = [
        {"params": [v for v in weights if id(v) not in taken], "weight_decay": part.weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if part.name == "adamw":
        return torch.optim.AdamW(groups, lr=part.lr, betas=(part.momentum, 0.999))
    return torch.optim.SGD(groups, lr=part.lr, momentum=part.momentum)


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

    def rate(step: int) -> float:
        factor = 1.0
        if part.kind == "cosine":
            wave = (1 + math.cos(math.pi * min(1.0, step / total))) / 2
            factor = part.final + (1 - part.final) * wave
        else:
            factor = part.gamma ** sum(step >= steps * epoch for epoch in part.milestones)
        if step < part.warmup:
            factor *= part.start + (1 - part.start) * step / part.warmup
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

    Raises:
        ModelError: If it is the memory of another optimiser.
    """
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, name = key.split(".", 1)
        state.setdefault(int(number), {})[name] = value
    groups = optimizer.state_dict()["param_groups"]
    if any(number >= sum(len(group["params"]) for group in groups) for number in state):
        raise ModelError("the optimiser's state belongs to another recipe; start a new run")
    optimizer.load_state_dict({"state": state, "param_groups": groups})


class Average:
    """An exponential moving average of all weights and statistics of a network.

    The decay grows from 0.1 as (1 + n) / (10 + n), so that the random start is soon forgotten.

    Args:
        model: Network to follow.
        decay: Largest decay.

    Attributes:
        tensors: The averages, by the network's names.
        updates: Number of updates so far.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.tensors = {name: value.detach().clone() for name, value in _state(model).items()}

    def update(self, model: nn.Module) -> None:
        """Move the averages towards the network's present values."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        now = _state(model)
        moving = [name for name, value in self.tensors.items() if value.is_floating_point()]
        ours, theirs = [self.tensors[n] for n in moving], [now[n].detach() for n in moving]
        torch._foreach_lerp_(ours, theirs, 1 - decay)
        for name, value in self.tensors.items():
            if not value.is_floating_point():
                value.copy_(now[name])


def _state(model: nn.Module) -> dict[str, Tensor]:
    return model.state_dict()
