"""Import of PyTorch checkpoints of torchvision, amdegroot, lufficc and qfgaohao.

The projects differ in the names of the layers and in the preparation of images, which each
`Family` describes. A checkpoint must have exactly the tensors of its family.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from realtime_ssd.core.errors import ModelError, UsageError
from realtime_ssd.core.spec import ModelSpec
from realtime_ssd_training.export import export_onnx
from realtime_ssd_training.importers import (
    class_names,
    pytorch_mobilenet,
    pytorch_resnet,
    pytorch_vgg16,
)
from realtime_ssd_training.importers.import_options import ImportOptions, ImportResult
from realtime_ssd_training.importers.label_choice import choose_labels, stored_classes
from realtime_ssd_training.importers.pytorch_family import Family, Weights
from realtime_ssd_training.importers.spec_overrides import apply_overrides
from realtime_ssd_training.models import SSD
from realtime_ssd_training.models.checkpoint import HEADER
from realtime_ssd_training.weights.pytorch_file import (
    PytorchFile,
    find_state_dict,
    read_pytorch_file,
)

__all__ = ["FAMILIES", "import_model", "is_checkpoint", "read_network"]

FAMILIES: dict[str, Family] = {
    **pytorch_vgg16.FAMILIES,
    **pytorch_mobilenet.FAMILIES,
    **pytorch_resnet.FAMILIES,
}
_COUNTERS = "num_batches_tracked"  # of normalizations; absent from old checkpoints and not needed
_IGNORED = re.compile(rf"^(priors|default_boxes|.*{_COUNTERS})$")
_LABELS = {21: class_names.VOC_21, 81: class_names.COCO_80, 91: class_names.COCO_91}
_MAX_CLASSES = 100_000


def import_model(path: Path, output: Path, options: ImportOptions) -> ImportResult:
    """Import a PyTorch checkpoint; see `realtime_ssd_training.importers`."""
    model, family, origin = _import_network(path, options)
    export_onnx(model, output)
    return ImportResult(model.spec, output, family, dynamic_batch=True, labels_origin=origin)


def read_network(path: Path, options: ImportOptions) -> tuple[SSD, str]:
    """Load a checkpoint into the network that it belongs to.

    Args:
        path: Checkpoint of another project.
        options: What the file does not contain.

    Returns:
        The network with weights and specification, in evaluation mode, and the name of the family.

    Raises:
        UsageError: If an option does not fit.
        ModelError: If the file is damaged or of an unknown kind.
    """
    return _import_network(path, options)[:2]


def _import_network(path: Path, options: ImportOptions) -> tuple[SSD, str, str]:
    """Return the network, the name of its family and the origin of its labels."""
    file = _read(path)
    weights = _without_shared_prefix(file.tensors)
    family = _select_family(path, weights, options.family)
    model = _build_network(path, weights, family)
    labels, origin = choose_labels(path, model.spec, options, stored_classes(file.metadata))
    spec = apply_overrides(replace(model.spec, labels=labels), options)
    _set_spec(path, model, spec)
    return model.eval(), family, origin


def _set_spec(path: Path, model: SSD, spec: ModelSpec) -> None:
    """Give the network a specification that fits its heads.

    Raises:
        UsageError: If the heads have another number of boxes at the input size.
    """
    if spec.input.width < 1 or spec.input.height < 1:
        raise UsageError(f"the input size {spec.input.width}x{spec.input.height} is not positive")
    size = (1, 3, spec.input.height, spec.input.width)
    try:
        with torch.no_grad():
            count = model.eval()(torch.zeros(size))[0].shape[1]
    except RuntimeError as error:
        raise UsageError(
            f"'{path}' cannot have images of {spec.input.width}x{spec.input.height} pixels; use "
            "the size of its training"
        ) from error
    if count != spec.num_boxes:
        raise UsageError(
            f"'{path}' has {count} default boxes for images of {spec.input.width}x"
            f"{spec.input.height} pixels, but its specification has {spec.num_boxes}; set "
            "`anchors` to the default boxes of its training, or import the ONNX file that its "
            "project exports with them inside"
        )
    model.set_boxes(spec)


def _read(path: Path) -> PytorchFile:
    if path.suffix.lower() == ".safetensors":
        return find_state_dict(_read_safetensors(path), path)
    return read_pytorch_file(path)


def _without_shared_prefix(weights: Weights) -> Weights:
    """Remove a prefix that all names share, which no known network has."""
    prefixes = {name.partition(".")[0] for name in weights}
    if len(prefixes) > 1 or any("." not in name for name in weights):
        return weights
    return _without_shared_prefix({k.partition(".")[2]: v for k, v in weights.items()})


def is_checkpoint(path: Path) -> bool:
    """Return whether a .safetensors file was written by this program.

    Raises:
        ModelError: If it is damaged.
    """
    return HEADER in _open_safetensors(path)[0]


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    metadata, tensors = _open_safetensors(path)
    if HEADER in metadata:
        raise UsageError(
            f"'{path}' was written by 'realtime-ssd train'; convert it to ONNX with "
            f"'realtime-ssd export'"
        )
    return tensors


def _open_safetensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Return metadata and tensors; no tensors of a checkpoint of this program."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            keys = [] if HEADER in metadata else file.keys()
            return metadata, {key: file.get_tensor(key) for key in keys}
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"'{path}' is not a readable .safetensors file; it may be damaged"
        ) from error


def _select_family(path: Path, weights: Weights, requested: str | None) -> str:
    """Return the family of a checkpoint, among all or those of the requested project."""
    candidates = [
        name
        for name in FAMILIES
        if requested is None or name == requested or name.startswith(f"{requested}-")
    ]
    if not candidates:
        raise UsageError(
            f"`family` '{requested}' is unknown for PyTorch checkpoints; choose from "
            f"{', '.join(FAMILIES)}"
        )
    if len(candidates) == 1:
        return candidates[0]
    has_order = path.suffix.lower() != ".safetensors" and list(weights) != sorted(weights)
    matches = [n for n in candidates if FAMILIES[n].matches(weights, has_order=has_order)]
    if len(matches) > 1:
        raise UsageError(
            f"'{path}' may be a checkpoint of {' or '.join(matches)}, whose default boxes differ; "
            "set `family`"
        )
    if not matches:
        known = "; ".join(FAMILIES[name].description for name in candidates)
        raise ModelError(
            f"'{path}' is not a checkpoint of a known SSD ({known}); convert it to ONNX and import "
            "that"
        )
    return matches[0]


def _build_network(path: Path, weights: Weights, name: str) -> SSD:
    """Build the network of a checkpoint with its weights and the specification of its family."""
    family = FAMILIES[name]
    renamed = _rename_weights(path, weights, family)
    classes = _count_classes(path, renamed, family)
    model = family.build(renamed, classes)
    if family.prepare is not None:
        renamed = family.prepare(renamed, classes)
    _load_weights(path, model, renamed, family)
    spec = replace(
        model.spec,
        name=f"{model.spec.name}_{name.partition('-')[0]}",
        labels=_LABELS.get(classes, model.spec.labels),
        description=f"{family.description}, {classes - 1} classes",
    )
    model.replace_spec(spec)
    return model


def _rename_weights(path: Path, weights: Weights, family: Family) -> dict[str, Tensor]:
    """Return the weights as float tensors with the names of this project's network."""
    renamed = {}
    for key, value in weights.items():
        if _IGNORED.match(key):
            continue
        name = family.rename(key)
        if name is None:
            raise ModelError(
                f"'{path}' has the tensor '{key}', which does not exist in {family.description}"
            )
        renamed[name] = value.float()
    return renamed


def _count_classes(path: Path, renamed: Weights, family: Family) -> int:
    """Return the number of score columns, derived from the first heads."""
    scores = renamed.get(f"score_heads.0.{family.last_bias}")
    offsets = renamed.get(f"offset_heads.0.{family.last_bias}")
    if scores is None or offsets is None or offsets.numel() < 4:
        raise ModelError(f"'{path}' does not have the heads of {family.description}")
    classes = scores.numel() // (offsets.numel() // 4)
    if not 2 <= classes <= _MAX_CLASSES:
        raise ModelError(f"'{path}' has {classes} score columns per box; at least 2 are needed")
    return classes


def _load_weights(path: Path, model: SSD, renamed: Weights, family: Family) -> None:
    """Load the weights into the network, whose tensors must match exactly."""
    expected = {k: v for k, v in model.state_dict().items() if not k.endswith(_COUNTERS)}
    missing = [key for key in expected if key not in renamed]
    wrong = [
        key
        for key, value in renamed.items()
        if key not in expected or expected[key].shape != value.shape
    ]
    if missing or wrong:
        raise ModelError(
            f"'{path}' is not a complete checkpoint of {family.description}: {len(missing)} "
            f"tensors are missing and {len(wrong)} have another shape, the first is "
            f"'{[*missing, *wrong][0]}'"
        )
    model.load_state_dict(renamed, strict=False)
