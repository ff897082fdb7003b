"""Training in several processes that `torchrun` starts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed

from realtime_ssd.core.errors import UsageError

__all__ = ["World", "join", "leave"]

PATIENCE = timedelta(hours=12)
"""How long the others wait for the first process, which alone scores."""


@dataclass(frozen=True, slots=True)
class World:
    """The processes of a run.

    Attributes:
        rank: Number of this one.
        size: How many there are.
        device: What this one computes on.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process writes files and talks."""
        return self.rank == 0

    def total(self, values: Tensor) -> Tensor:
        """Sum a tensor over all processes; each gets the sum."""
        if self.size > 1:
            values = values.clone()
            distributed.all_reduce(values)
        return values

    def gather(self, words: Sequence[str]) -> list[str]:
        """Put the words of all processes together; each gets all."""
        if self.size == 1:
            return list(words)
        lists: list[Any] = [None] * self.size
        distributed.all_gather_object(lists, list(words))
        return [word for part in lists for word in part]

    def share(self, batch: int) -> int:
        """Images of each process in a batch of all.

        Raises:
            UsageError: If the batch cannot be dealt out evenly.
        """
        if batch % self.size:
            raise UsageError(
                f"a batch of {batch} images cannot be dealt out to {self.size} processes; give a "
                f"multiple of {self.size}"
            )
        return batch // self.size


def join(device: str = "auto") -> World:
    """Find out who takes part; processes started by `torchrun` find each other.

    Args:
        device: "auto" takes the GPU where there is one; else "cpu", "cuda", "cuda:1", "mps", ...

    Raises:
        UsageError: If there is no such device.
    """
    size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    place = _device(device, int(os.environ.get("LOCAL_RANK", "0")), size)
    if size > 1 and not distributed.is_initialized():
        kind = "nccl" if place.type == "cuda" else "gloo"
        distributed.init_process_group(kind, timeout=PATIENCE)
    return World(rank, size, place)


def leave() -> None:
    """End what `join` began."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def _device(name: str, local: int, size: int) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"'{name}' is no device; give auto, cpu, cuda or cuda:NUMBER") from None
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise UsageError(f"device '{name}' needs a GPU, but none is usable; give cpu or auto")
        number = local if size > 1 else device.index or 0
        if number >= torch.cuda.device_count():
            raise UsageError(
                f"GPU {number} does not exist: this machine has {torch.cuda.device_count()} GPUs; "
                "give another number, or start fewer processes"
            )
        device = torch.device("cuda", number)
        torch.cuda.set_device(device)
    return device
