"""State dictionaries in PyTorch files of other projects, read without running code in them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from realtime_ssd.core.errors import ModelError

__all__ = ["find_state_dict", "read_state_dict"]


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a file that `torch.save` wrote; see `find_state_dict`.

    Raises:
        ModelError: If the file is damaged, contains other objects than tensors and plain values,
            or has no state dictionary.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ModelError(
            f"'{path}' is not a PyTorch file of plain weights: it is damaged, or contains objects "
            "that would run code when loaded; save its state_dict() and use that"
        ) from error
    return find_state_dict(content, path)


def find_state_dict(content: object, path: Path) -> dict[str, Tensor]:
    """Return the tensors of a state dictionary, without the "module." of parallel training.

    Args:
        content: The dictionary, or a dictionary that contains it as "model" or "state_dict".
        path: Its file, for messages.

    Raises:
        ModelError: If there is no state dictionary.
    """
    for key in ("model", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    items = content.items() if isinstance(content, Mapping) else ()
    tensors = {
        str(key).removeprefix("module."): value for key, value in items if isinstance(value, Tensor)
    }
    if not tensors:
        raise ModelError(f"'{path}' has no state_dict; save the model's state_dict() and use that")
    return tensors
