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
        order: Two tensor names in the order in which the project stores them, which distinguishes
            projects with the same names.
        prepare: Reorders the renamed weights for a number of classes; None if their order is that
            of this project.
    """

    signature: tuple[str, ...]
    rename: Rename
    build: Callable[[Weights, int], SSD]
    last_bias: str
    description: str
    order: tuple[str, ...] = ()
    prepare: Callable[[Weights, int], dict[str, Tensor]] | None = None

    def matches(self, weights: Weights, *, has_order: bool = True) -> bool:
        """Return whether a checkpoint has the names of the signature.

        Args:
            weights: The checkpoint.
            has_order: Whether its tensors are in the order in which they were stored.
        """
        if not all(name in weights for name in self.signature):
            return False
        names = [name for name in weights if name in self.order]
        return not has_order or tuple(names) == self.order


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
