"""Training in several processes started by `torchrun`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed

from realtime_ssd.core.errors import UsageError

__all__ = ["DistributedContext", "destroy_distributed", "init_distributed"]

TIMEOUT = timedelta(hours=12)
"""Maximum wait for another process; only the main process evaluates while the others wait."""


@dataclass(frozen=True, slots=True)
class DistributedContext:
    """The processes of a run.

    Attributes:
        rank: Index of this process.
        world_size: Number of processes.
        device: Device of this process.
    """

    rank: int
    world_size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    def all_reduce(self, values: Tensor) -> Tensor:
        """Return the sum of a tensor over all processes."""
        if self.world_size > 1:
            values = values.clone()
            distributed.all_reduce(values)
        return values

    def all_gather(self, texts: Sequence[str]) -> list[str]:
        """Return the strings of all processes in order of rank."""
        if self.world_size == 1:
            return list(texts)
        gathered: list[Any] = [None] * self.world_size
        distributed.all_gather_object(gathered, list(texts))
        return [text for part in gathered for text in part]

    def local_batch_size(self, batch: int) -> int:
        """Return the images of this process in a batch of all processes.

        Raises:
            UsageError: If the batch cannot be split evenly.
        """
        if batch % self.world_size:
            raise UsageError(
                f"a `batch` of {batch} images cannot be split over {self.world_size} processes; "
                f"use a multiple of {self.world_size}"
            )
        return batch // self.world_size


def init_distributed(device: str = "auto") -> DistributedContext:
    """Initialize the process group if `torchrun` started this process.

    Args:
        device: "auto" selects a GPU if there is one; otherwise "cpu", "cuda", "cuda:1", "mps", ...

    Raises:
        UsageError: If the device does not exist.
    """
    world_size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    selected = _select_device(device, int(os.environ.get("LOCAL_RANK", "0")), world_size)
    if world_size > 1 and not distributed.is_initialized():
        backend = "nccl" if selected.type == "cuda" else "gloo"
        distributed.init_process_group(backend, timeout=TIMEOUT)
    return DistributedContext(rank, world_size, selected)


def destroy_distributed() -> None:
    """Destroy the process group of `init_distributed`."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def _select_device(name: str, local_rank: int, world_size: int) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(
            f"`device` '{name}' is unknown; use auto, cpu, cuda or cuda:NUMBER"
        ) from None
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise UsageError(f"`device` '{name}' needs a usable GPU; use cpu or auto")
        index = local_rank if world_size > 1 else device.index or 0
        if index >= torch.cuda.device_count():
            raise UsageError(
                f"GPU {index} does not exist: this machine has {torch.cuda.device_count()} GPUs; "
                "use another number or start fewer processes"
            )
        device = torch.device("cuda", index)
        torch.cuda.set_device(device)
    return device
