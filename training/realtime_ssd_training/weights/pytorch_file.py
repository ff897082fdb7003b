"""State dictionaries in PyTorch files of other projects, read without running code in them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from realtime_ssd.core.errors import ModelError
from realtime_ssd_training.weights.inert_unpickler import load_inert

__all__ = ["PytorchFile", "find_state_dict", "read_pytorch_file", "read_state_dict"]

_PREFERRED = (
    "state_dict",
    "model_state_dict",
    "model",
    "net",
    "network",
    "model_state",
    "net_state_dict",
    "weights",
    "params",
    "ema",
    "model_ema",
    "ema_state_dict",
)
"""Names under which projects store the weights, the most specific first."""

_WRAPPERS = ("module", "_orig_mod", "model", "net", "network", "detector", "_forward_module")
"""Prefixes of parallel training, torch.compile, Lightning and similar wrappers."""

_NOT_WEIGHTS = ("optim", "sched", "scaler", "amp", "rng", "criterion", "loss")
_MAX_DEPTH = 4
_MOST = 0.9  # part of the tensors that must be behind a prefix for it to be one of a wrapper


@dataclass(frozen=True, slots=True, eq=False)
class PytorchFile:
    """The weights in a PyTorch file, and what its project stored beside them.

    Attributes:
        tensors: The weights, without prefixes of wrappers.
        location: Keys that lead to them, as in "model_state_dict"; empty if they are the content.
        metadata: Plain values of the file by key, for example `meta` of OpenMMLab.
    """

    tensors: dict[str, Tensor]
    location: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read the weights of a file that `torch.save` wrote; see `read_pytorch_file`."""
    return read_pytorch_file(path).tensors


def read_pytorch_file(path: Path) -> PytorchFile:
    """Read the weights of a file that `torch.save` wrote.

    The weights may be at the top, inside dictionaries or tuples, or the parameters of a whole
    network, of which only the tensors are read.

    Raises:
        ModelError: If the file is damaged, a TorchScript archive, or has no weights.
    """
    if _is_torchscript(path):
        raise ModelError(
            f"'{path}' is a TorchScript program, not a file of weights; save the model's "
            "state_dict() and use that, or export it to ONNX"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols, for authors of the file
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:
        content = _load_with_placeholders(path)
    return find_state_dict(content, path)


def _is_torchscript(path: Path) -> bool:
    """Return whether PyTorch would run a program in the file.

    PyTorch's own reader decides, since Python's may see other files in a crafted archive.
    """
    try:
        return "constants.pkl" in torch._C.PyTorchFileReader(str(path)).get_all_records()
    except (RuntimeError, OSError, ValueError):  # no zip archive, or one that nothing reads
        return False


def _load_with_placeholders(path: Path) -> Any:
    try:
        return load_inert(path)
    except Exception as error:
        raise ModelError(
            f"'{path}' is not a PyTorch file of plain weights; it may be damaged: save the "
            "model's state_dict() and use that"
        ) from error


def find_state_dict(content: object, path: Path) -> PytorchFile:
    """Find the weights in the content of a file.

    Args:
        content: Dictionaries, lists and tensors.
        path: The file, for messages.

    Raises:
        ModelError: If there are none.
    """
    found = {location: tensors for location, tensors in _candidates(content) if tensors}
    if not found:
        keys = ", ".join(map(str, list(content)[:8])) if isinstance(content, Mapping) else ""
        raise ModelError(
            f"'{path}' has no state_dict{f', only {keys}' if keys else ''}; save the model's "
            "state_dict() and use that"
        )
    most = max(map(len, found.values()))
    complete = [item for item, tensors in found.items() if 2 * len(tensors) >= most]
    location = min(complete, key=_rank)
    metadata = content if isinstance(content, Mapping) and location else {}
    return PytorchFile(_without_wrappers(found[location]), location, metadata)


def _rank(location: str) -> int:
    """Return the position of a location among the preferred ones; the top comes first."""
    if not location:
        return 0
    names = location.split(".")
    ranks = [_PREFERRED.index(name) + 1 for name in names if name in _PREFERRED]
    return min(ranks, default=len(_PREFERRED) + 1)


def _candidates(
    content: object, trail: tuple[str, ...] = ()
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield all dictionaries of tensors, and whole networks, with their locations."""
    if isinstance(content, list | tuple):
        content = {str(index): item for index, item in enumerate(content)}
    if not isinstance(content, Mapping) or len(trail) > _MAX_DEPTH:
        return
    if isinstance(content.get("_modules"), Mapping):
        yield ".".join(trail), dict(_module_tensors(content))
        return
    yield (
        ".".join(trail),
        {str(key): value for key, value in content.items() if isinstance(value, Tensor)},
    )
    for key, value in content.items():
        if not any(word in str(key).lower() for word in _NOT_WEIGHTS):
            yield from _candidates(value, (*trail, str(key)))


def _module_tensors(module: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield parameters and buffers of a network that was saved as a whole."""
    for kind in ("_parameters", "_buffers"):
        for name, value in dict(module.get(kind) or {}).items():
            if isinstance(value, Tensor):
                yield f"{prefix}{name}", value
    for name, child in dict(module.get("_modules") or {}).items():
        if isinstance(child, Mapping):
            yield from _module_tensors(child, f"{prefix}{name}.")


def _without_wrappers(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Remove the prefixes that wrappers put before the names of all weights.

    Tensors of a wrapper itself, such as those of a loss, are dropped with them.
    """
    while True:
        for prefix in (f"{name}." for name in _WRAPPERS):
            inside = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            if len(inside) >= _MOST * len(tensors):
                tensors = inside
                break
        else:
            return tensors
