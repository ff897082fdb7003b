"""Checkpoints: weights and training state in safetensors files, each with a JSON side-car.

The safetensors header repeats the side-car, so that the file is complete without it. Files are
replaced atomically: after a power failure or on a full disk the previous checkpoint is intact.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from torch import Tensor, nn

from realtime_ssd.core.errors import ModelError, UsageError
from realtime_ssd.core.files import replace_file
from realtime_ssd.core.spec import spec_from_json, spec_to_json
from realtime_ssd.core.spec_decoder import parse_object
from realtime_ssd_training.models import SSD, create

__all__ = [
    "HEADER",
    "Checkpoint",
    "load_model",
    "load_weights",
    "read_checkpoint",
    "save_checkpoint",
]

HEADER = "realtime_ssd"
"""Key of the JSON text in the metadata of a safetensors file."""
_MAX_HEADER = 2**26
"""Characters of that text, which also contains the state of the run."""


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """The contents of a checkpoint file.

    Attributes:
        tensors: Tensors by group ("model", "ema", "optimizer") and name.
        architecture: Name for `realtime_ssd_training.models.create`.
        options: Options of that network.
        spec: `ModelSpec` as JSON text.
        metadata: Plain values, for example epoch, step, scores and recipe ("facts" in the file).
    """

    tensors: Mapping[str, Mapping[str, Tensor]]
    architecture: str
    options: Mapping[str, Any]
    spec: str
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def weights(self) -> Mapping[str, Tensor]:
        """The weights for inference: the moving average if there is one."""
        return self.tensors.get("ema") or self.tensors["model"]


class _Header(msgspec.Struct):
    architecture: str
    options: dict[str, Any]
    spec: dict[str, Any]
    metadata: dict[str, Any] = msgspec.field(name="facts")


def save_checkpoint(
    path: Path,
    model: SSD,
    groups: Mapping[str, Mapping[str, Tensor]] | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Write a model, and optionally the state of its run, atomically.

    Args:
        path: File to write, ending in ".safetensors"; the side-car ends in ".json".
        model: The network; its weights are the group "model".
        groups: Additional tensors by group.
        metadata: Plain values that JSON can hold.

    Raises:
        ModelError: If the file cannot be written.
    """
    from safetensors.torch import save

    tensors = {
        f"{group}/{name}": tensor.detach().cpu().contiguous()
        for group, members in {"model": model.state_dict(), **(groups or {})}.items()
        for name, tensor in members.items()
    }
    header = msgspec.to_builtins(
        _Header(
            model.architecture,
            dict(model.options),
            json.loads(spec_to_json(model.spec)),
            dict(metadata or {}),
        )
    )
    try:
        replace_file(path, save(tensors, metadata={HEADER: json.dumps(header)}), durable=True)
        replace_file(path.with_suffix(".json"), (json.dumps(header, indent=1) + "\n").encode())
    except OSError as error:
        kept = "; the previous one is intact" if path.exists() else ""
        raise ModelError(
            f"the checkpoint '{path}' cannot be written ({error.strerror}){kept}; free some space "
            "or choose another folder"
        ) from error


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a file written by `save_checkpoint`.

    Raises:
        UsageError: If the file does not exist.
        ModelError: If it is damaged or was not written by `save_checkpoint`.
    """
    from safetensors import SafetensorError, safe_open

    if Path(path).is_dir():
        raise UsageError(f"'{path}' is a folder; use the file best.safetensors in it")
    if not Path(path).is_file():
        raise UsageError(f"checkpoint '{path}' does not exist")
    tensors: dict[str, dict[str, Tensor]] = {}
    try:
        with safe_open(path, framework="pt") as file:
            contents = parse_object((file.metadata() or {})[HEADER], _MAX_HEADER)
            header = msgspec.convert(contents, _Header)
            spec = json.dumps(header.spec)
            for key in file.keys():  # noqa: SIM118 - the file is not a mapping
                group, name = key.split("/", 1)
                tensors.setdefault(group, {})[name] = file.get_tensor(key)
    except (SafetensorError, OSError, KeyError, ValueError, RecursionError) as error:
        raise ModelError(
            f"'{path}' is damaged or is not a checkpoint of this program; use a .safetensors file "
            "written by 'realtime-ssd train'"
        ) from error
    return Checkpoint(tensors, header.architecture, header.options, spec, header.metadata)


def load_model(path: str | Path) -> SSD:
    """Rebuild the network of a checkpoint with its weights.

    Args:
        path: File written by `realtime-ssd train`.

    Returns:
        The network in evaluation mode, on the CPU.

    Raises:
        ModelError: If the weights do not fit the network.
    """
    checkpoint = read_checkpoint(path)
    spec = spec_from_json(checkpoint.spec)
    model = create(checkpoint.architecture, spec.labels, **checkpoint.options)
    model.replace_spec(spec)
    load_weights(model, checkpoint.weights, str(path))
    return model.eval()


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Load weights into a network whose tensors have the same names and shapes.

    Args:
        model: Network to change.
        weights: Tensors by name.
        source: File name for the error message.

    Raises:
        ModelError: If names or shapes differ.
    """
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        first = str(error).splitlines()[1:2]
        raise ModelError(
            f"the weights in '{source}' do not fit the network ({''.join(first).strip()}); use the "
            "recipe they were trained with"
        ) from error
