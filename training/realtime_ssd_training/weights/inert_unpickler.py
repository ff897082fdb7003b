"""An unpickler that runs no code: unknown objects become inert placeholders.

Checkpoints of other projects contain their options, schedules or whole networks beside the weights.
Pickle can only call what it looks up by name, and here every name but those of a few constructors
of tensors is a class that stores what it is given.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

__all__ = ["Placeholder", "load_inert"]


class Placeholder(dict[Any, Any]):
    """An object of an unknown class: items and attributes are kept, nothing is executed."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        self.arguments = (args, kwargs)

    def __call__(self, *args: Any, **kwargs: Any) -> Placeholder:
        """Return another placeholder for the result of calling an unknown object."""
        return Placeholder(*args, **kwargs)

    def __setstate__(self, state: Any) -> None:
        """Keep attributes that are a mapping; drop any other state."""
        if isinstance(state, dict):
            self.update({key: value for key, value in state.items() if isinstance(key, str)})

    def append(self, value: Any) -> None:
        """Ignore an item of an unknown list."""

    def extend(self, values: Any) -> None:
        """Ignore items of an unknown list."""

    def add(self, value: Any) -> None:
        """Ignore an item of an unknown set."""

    __hash__ = object.__hash__  # type: ignore[assignment]  # enum members are keys of dictionaries
    __eq__ = object.__eq__
    __ne__ = object.__ne__


def _function(target: Callable[..., Any]) -> Callable[..., Any]:
    """Return a new function for each load, so that a file cannot change attributes of PyTorch's."""
    return lambda *args: target(*args)  # noqa: PLW0108


def _allowed_globals() -> dict[tuple[str, str], Any]:
    """Return what a file may look up: constructors of tensors and plain values."""
    rebuild = ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter")
    table: dict[tuple[str, str], Any] = {
        ("torch._utils", name): _function(getattr(torch._utils, name)) for name in rebuild
    }
    table["collections", "OrderedDict"] = OrderedDict
    table["torch", "Size"] = torch.Size
    for name, value in vars(torch).items():
        if isinstance(value, torch.dtype) or (name.endswith("Storage") and isinstance(value, type)):
            table["torch", name] = value
    return table


class _InertUnpickler(pickle.Unpickler):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._classes = _allowed_globals()

    def find_class(self, module: str, name: str) -> Any:
        """Return an allowed object, or a placeholder class of that name."""
        key = (module, name)
        if key not in self._classes:
            self._classes[key] = type(name.rpartition(".")[2] or "unknown", (Placeholder,), {})
        return self._classes[key]


def _load(file: Any, **kwargs: Any) -> Any:
    return _InertUnpickler(file, **kwargs).load()


_PICKLE = SimpleNamespace(__name__="inert_pickle", Unpickler=_InertUnpickler, load=_load)


def load_inert(path: Path) -> Any:
    """Read a file that `torch.save` wrote, with placeholders for all objects of unknown classes.

    Args:
        path: The file; TorchScript archives, which contain programs, must not be passed.

    Returns:
        Tensors on the CPU inside dictionaries, lists, plain values and placeholders.

    Raises:
        Exception: Of various kinds, if the file is damaged.
    """
    # The restricted unpickler replaces `weights_only`, which rejects whole files.
    return torch.load(path, map_location="cpu", weights_only=False, pickle_module=_PICKLE)
