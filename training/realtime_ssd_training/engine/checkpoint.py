"""Weights and training state in safetensors files, each with a JSON side-car for people.

A file is complete in itself: what the side-car says also stands in its header. After a power cut
or on a full disk the old one is still there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from realtime_ssd.core.errors import ModelError, UsageError
from realtime_ssd.core.files import replace_file
from realtime_ssd.core.spec import spec_from_json, spec_to_json
from realtime_ssd_training.models import SSD, create

__all__ = [
    "Checkpoint",
    "load_model",
    "load_weights",
    "read_checkpoint",
    "read_pickled",
    "save_checkpoint",
    "start_from",
]

HEADER = "realtime_ssd"


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """What one file holds.

    Attributes:
        tensors: Tensors by group ("model", "ema", "optimizer") and name.
        architecture: Name for `realtime_ssd_training.models.create`.
        options: Options of that network.
        spec: The model's contract as JSON text.
        facts: Plain values: epoch, step, scores, recipe.
    """

    tensors: Mapping[str, Mapping[str, Tensor]]
    architecture: str
    options: Mapping[str, Any]
    spec: str
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def weights(self) -> Mapping[str, Tensor]:
        """The weights to use: their moving average where there is one."""
        return self.tensors.get("ema") or self.tensors["model"]


def save_checkpoint(
    path: Path,
    model: SSD,
    groups: Mapping[str, Mapping[str, Tensor]] | None = None,
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Write a model, and what else belongs to a run, in one move.

    Args:
        path: File to write, ending in ".safetensors"; the side-car ends in ".json".
        model: The network; its weights are the group "model".
        groups: More tensors by group.
        facts: Plain values ready for JSON.

    Raises:
        ModelError: If the file cannot be written.
    """
    from safetensors.torch import save

    parts = {"model": model.state_dict(), **(groups or {})}
    tensors = {
        f"{group}/{name}": tensor.detach().cpu().contiguous()
        for group, named in parts.items()
        for name, tensor in named.items()
    }
    head = {
        "architecture": model.architecture,
        "options": dict(model.options),
        "spec": json.loads(spec_to_json(model.spec)),
        "facts": dict(facts or {}),
    }
    try:
        replace_file(path, save(tensors, metadata={HEADER: json.dumps(head)}), durable=True)
        replace_file(path.with_suffix(".json"), (json.dumps(head, indent=1) + "\n").encode())
    except OSError as error:
        kept = "; the one before it is whole" if path.exists() else ""
        raise ModelError(
            f"the checkpoint '{path}' cannot be written ({error.strerror}){kept}; free some space "
            "or choose another folder"
        ) from error


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read what `save_checkpoint` wrote.

    Raises:
        UsageError: If there is no such file.
        ModelError: If the file is damaged or of another program.
    """
    from safetensors import SafetensorError, safe_open

    if Path(path).is_dir():
        raise UsageError(f"'{path}' is a folder; give the file best.safetensors in it")
    if not Path(path).is_file():
        raise UsageError(f"checkpoint '{path}' does not exist")
    tensors: dict[str, dict[str, Tensor]] = {}
    try:
        with safe_open(path, framework="pt") as file:
            head = json.loads((file.metadata() or {})[HEADER])
            for key in file.keys():  # noqa: SIM118 - the file is no mapping
                group, name = key.split("/", 1)
                tensors.setdefault(group, {})[name] = file.get_tensor(key)
        parts = str(head["architecture"]), dict(head["options"]), json.dumps(head["spec"])
        return Checkpoint(tensors, *parts, dict(head["facts"]))
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"'{path}' is no checkpoint of this program, or it is damaged; give a .safetensors "
            "file that 'realtime-ssd train' wrote"
        ) from error


def read_pickled(path: Path, problem: str) -> Any:
    """Read a PyTorch file of another program: only tensors and plain values, never code.

    Args:
        path: The file.
        problem: What to say if it is damaged or holds anything else.

    Raises:
        ModelError: With `problem`.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ModelError(problem) from error


def load_model(path: str | Path) -> SSD:
    """Rebuild the network of a checkpoint with its weights, ready to be scored or exported.

    Args:
        path: File that `realtime-ssd train` wrote.

    Returns:
        The network in evaluation mode, on the CPU.

    Raises:
        ModelError: If the file does not fit.
    """
    found = read_checkpoint(path)
    spec = spec_from_json(found.spec)
    model = create(found.architecture, spec.labels, **found.options)
    model.adopt(spec)
    load_weights(model, found.weights, str(path))
    return model.eval()


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], where: str) -> None:
    """Put weights into a network whose tensors have the same names and shapes.

    Raises:
        ModelError: If they do not fit.
    """
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        first = str(error).splitlines()[1:2]
        raise ModelError(
            f"the weights in '{where}' do not fit the network ({''.join(first).strip()}); use the "
            "recipe they were trained with"
        ) from error


def start_from(model: SSD, path: str | Path) -> tuple[int, int]:
    """Take over every tensor of a checkpoint that has the same name and shape here.

    Heads of other classes or other default boxes keep their new weights.

    Args:
        model: Network to start.
        path: Checkpoint to take from.

    Returns:
        Number of tensors taken over, and number of all tensors of the network.

    Raises:
        ModelError: If nothing fits.
    """
    weights, own = read_checkpoint(path).weights, model.state_dict()
    fitting = {k: v for k, v in weights.items() if k in own and v.shape == own[k].shape}
    if not fitting:
        raise ModelError(f"no weights in '{path}' fit '{model.architecture}'; use a related model")
    model.load_state_dict(fitting, strict=False)
    return len(fitting), len(own)
