"""Import of PyTorch checkpoints of torchvision, amdegroot, lufficc and qfgaohao.

Each project names the same layers otherwise and prepares images in its own way. The family files
say how; a checkpoint is of the family whose keys it has, all of them and no others.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from realtime_ssd.core.errors import ModelError, UsageError
from realtime_ssd_training.engine.checkpoint import HEADER, read_pickled
from realtime_ssd_training.export import export_onnx
from realtime_ssd_training.importers import families_mobilenet, families_vgg16, labels
from realtime_ssd_training.importers.families import Family, Weights
from realtime_ssd_training.importers.options import Imported, ImportOptions
from realtime_ssd_training.importers.overrides import apply
from realtime_ssd_training.models import SSD

__all__ = ["FAMILIES", "import_model", "read_network"]

FAMILIES: dict[str, Family] = {**families_vgg16.FAMILIES, **families_mobilenet.FAMILIES}
_COUNTERS = "num_batches_tracked"  # of normalisations; old checkpoints lack them, nobody needs them
_NO_WEIGHT = re.compile(rf"^(priors|default_boxes|.*{_COUNTERS})$")
_LABELS = {21: labels.VOC_21, 81: labels.COCO_80, 91: labels.COCO_91}
_MOST_CLASSES = 100_000


def import_model(path: Path, output: Path, options: ImportOptions) -> Imported:
    """Import a PyTorch checkpoint; see `realtime_ssd_training.importers.import_model`."""
    model, family = read_network(path, options)
    export_onnx(model, output)
    return Imported(model.spec, output, family, dynamic_batch=True)


def read_network(path: Path, options: ImportOptions) -> tuple[SSD, str]:
    """Read a checkpoint into the network it belongs to.

    Args:
        path: Checkpoint of another project.
        options: What the user told about it.

    Returns:
        The network with its weights and contract, in evaluation mode, and the family's name.

    Raises:
        UsageError: If an option does not fit.
        ModelError: If the file is damaged or of no known kind.
    """
    weights = _read(path)
    family = _family(path, weights, options.family)
    return _network(path, weights, family, options), family


def _read(path: Path) -> Weights:
    """Read a checkpoint; only tensors and plain values, never code."""
    content = _safetensors(path) if path.suffix.lower() == ".safetensors" else _pickled(path)
    for key in ("model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not any(isinstance(v, Tensor) for v in content.values()):
        raise ModelError(f"'{path}' holds no state_dict; save the model's state_dict() and retry")
    return {
        str(key).removeprefix("module."): value
        for key, value in content.items()
        if isinstance(value, Tensor)
    }


def _pickled(path: Path) -> Any:
    return read_pickled(
        path,
        f"'{path}' is no PyTorch checkpoint of plain weights: it is damaged, or holds objects "
        "that would run code when loaded; save its state_dict() and import that",
    )


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            own = HEADER in (file.metadata() or {})
            tensors = {} if own else {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelError(f"'{path}' is no readable .safetensors file: it may be damaged") from error
    if own:
        raise UsageError(
            f"'{path}' was written by 'realtime-ssd train'; turn it into ONNX with "
            f"'realtime-ssd export'"
        )
    return tensors


def _family(path: Path, weights: Weights, given: str | None) -> str:
    """Name the family of a checkpoint, among those of the project or the one that was named."""
    candidates = [
        name for name in FAMILIES if given is None or name == given or name.startswith(f"{given}-")
    ]
    if not candidates:
        raise UsageError(
            f"family '{given}' has no PyTorch checkpoints here; choose {', '.join(FAMILIES)}"
        )
    if len(candidates) == 1:
        return candidates[0]
    found = [name for name in candidates if all(mark in weights for mark in FAMILIES[name].marks)]
    if len(found) != 1:
        known = "; ".join(FAMILIES[name].about for name in candidates)
        raise ModelError(
            f"'{path}' is no checkpoint of a known SSD ({known}); convert it to ONNX and import "
            "that"
        )
    return found[0]


def _network(path: Path, weights: Weights, name: str, options: ImportOptions) -> SSD:
    """Build the network of a checkpoint with its weights and its contract."""
    family = FAMILIES[name]
    renamed: dict[str, Tensor] = {}
    for key, value in weights.items():
        if _NO_WEIGHT.match(key):
            continue
        own = family.rename(key)
        if own is None:
            raise ModelError(f"'{path}' has a tensor '{key}' that no {family.about} has")
        renamed[own] = value.float()
    classes = _classes(path, renamed, family)
    model = family.build(renamed, classes)
    _fill(path, model, renamed, family)
    spec = replace(
        model.spec,
        name=f"{model.spec.name}_{name.partition('-')[0]}",
        labels=_LABELS.get(classes, model.spec.labels),
        description=f"{family.about}, {classes - 1} classes",
    )
    model.replace_spec(apply(spec, options))
    return model.eval()


def _classes(path: Path, renamed: Weights, family: Family) -> int:
    """Read the number of score columns off the first heads."""
    scores = renamed.get(f"score_heads.0.{family.bias}")
    offsets = renamed.get(f"offset_heads.0.{family.bias}")
    if scores is None or offsets is None or offsets.numel() < 4:
        raise ModelError(f"'{path}' has no heads of {family.about}")
    classes = scores.numel() // (offsets.numel() // 4)
    if not 2 <= classes <= _MOST_CLASSES:
        raise ModelError(f"'{path}' has {classes} score columns a box; at least 2 are needed")
    return classes


def _fill(path: Path, model: SSD, renamed: Weights, family: Family) -> None:
    """Put the weights into the network; every one must have its place and shape."""
    wanted = {k: v for k, v in model.state_dict().items() if not k.endswith(_COUNTERS)}
    missing = [key for key in wanted if key not in renamed]
    wrong = [k for k, value in renamed.items() if k not in wanted or wanted[k].shape != value.shape]
    if missing or wrong:
        raise ModelError(
            f"'{path}' does not hold {family.about} whole: "
            f"{len(missing)} tensors are missing and {len(wrong)} have another shape, the first is "
            f"'{[*missing, *wrong][0]}'"
        )
    model.load_state_dict(renamed, strict=False)
