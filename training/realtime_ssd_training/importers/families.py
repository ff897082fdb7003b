"""What a family of PyTorch checkpoints is, and how its tensors' names are translated."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from realtime_ssd_training.models import SSD

__all__ = ["Family", "Rename", "Weights", "renamer"]

Weights = Mapping[str, Tensor]
Rename = Callable[[str], str | None]


@dataclass(frozen=True, slots=True)
class Family:
    """How one project writes one network.

    Attributes:
        marks: Keys that together only its checkpoints have.
        rename: Gives the name of a tensor here, or None for one that is no weight.
        build: Makes the empty network with its contract, from the renamed tensors and the number
            of classes.
        bias: Place of the last bias inside a head.
        about: Where it comes from.
    """

    marks: tuple[str, ...]
    rename: Rename
    build: Callable[[Weights, int], SSD]
    bias: str
    about: str


def renamer(table: Mapping[str, str]) -> Rename:
    """Translate names by their longest beginning that a table knows.

    Args:
        table: Beginning of a name there (whole parts between dots) → here.
    """

    def rename(key: str) -> str | None:
        head, tail = key, ""
        while head:
            if head in table:
                return table[head] + tail
            head, _, part = head.rpartition(".")
            tail = f".{part}{tail}"
        return None

    return rename
