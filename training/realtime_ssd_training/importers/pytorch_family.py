"""Description of a family of PyTorch checkpoints, with the translation of tensor names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from realtime_ssd_training.models import SSD

__all__ = ["Family", "Rename", "Weights", "prefix_renamer"]

Weights = Mapping[str, Tensor]
Rename = Callable[[str], str | None]


@dataclass(frozen=True, slots=True)
class Family:
    """The checkpoints of one network of one project.

    Attributes:
        signature: Tensor names that only its checkpoints have together.
        rename: Function that translates a tensor name; None for an unknown one.
        build: Function that creates the network with its specification from the renamed weights
            and the number of classes.
        last_bias: Name of the last bias inside a head.
        description: Network and project, for messages and the specification.
    """

    signature: tuple[str, ...]
    rename: Rename
    build: Callable[[Weights, int], SSD]
    last_bias: str
    description: str

    def matches(self, weights: Weights) -> bool:
        """Return whether a checkpoint has the names of the signature."""
        return all(name in weights for name in self.signature)


def prefix_renamer(table: Mapping[str, str]) -> Rename:
    """Return a function that replaces the longest known prefix of a tensor name.

    Args:
        table: New prefix by old prefix; a prefix consists of whole parts between dots.
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
