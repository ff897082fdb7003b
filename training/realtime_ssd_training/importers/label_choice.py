"""Choice of the class names of an imported model, and where they come from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from realtime_ssd.core.errors import UsageError
from realtime_ssd.core.spec import ModelSpec
from realtime_ssd_training.importers import class_names
from realtime_ssd_training.importers.class_names import complete_labels, read_label_lines
from realtime_ssd_training.importers.import_options import ImportOptions
from realtime_ssd_training.weights.text_files import labels_beside

__all__ = ["ASSUMED", "choose_labels", "stored_classes"]

ASSUMED = "assumed"
"""Word in the origin of labels that the number of score columns suggests."""

_KNOWN = {
    class_names.VOC_21: "the 20 Pascal VOC classes",
    class_names.COCO_80: "the 80 COCO classes",
    class_names.COCO_91: "the COCO ids 1 to 90",
}


def choose_labels(
    path: Path, spec: ModelSpec, options: ImportOptions, stored: tuple[str, ...] = ()
) -> tuple[tuple[str, ...], str]:
    """Return the labels of a model, and where they come from.

    In this order: the user's file, names in the model's file, a label file beside it, the names
    that its kind implies.

    Args:
        path: The model.
        spec: Its specification with the labels that its kind implies.
        options: The user's options; `apply_overrides` reads the labels.
        stored: Class names in the model's file, without the background.

    Raises:
        UsageError: If a label file beside the model does not fit it.
    """
    if options.labels is not None:
        return spec.labels, str(options.labels)
    background = spec.background is not None
    if stored and len(stored) == spec.num_classes - background:
        labels = complete_labels(list(stored), spec.num_classes, str(path), background=background)
        return labels, f"stored in {path.name}"
    beside = labels_beside(path)
    if beside is not None:
        try:
            lines = read_label_lines(beside)
            labels = complete_labels(lines, spec.num_classes, str(beside), background=background)
        except UsageError as error:
            raise UsageError(
                f"{error}; set `labels` to the file of this model, or move that file"
            ) from error
        return labels, str(beside)
    if spec.labels in _KNOWN:
        return spec.labels, (
            f"{_KNOWN[spec.labels]}, {ASSUMED} from the {spec.num_classes} score columns; set "
            "`labels` if it was trained on others"
        )
    if spec.labels == class_names.numbered_labels(spec.num_classes, background=background):
        return spec.labels, "numbered; set `labels` to name them"
    return spec.labels, ""


def stored_classes(metadata: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the class names that OpenMMLab's checkpoints contain, without the background."""
    meta = metadata.get("meta")
    if not isinstance(meta, Mapping):
        return ()
    for holder in (meta.get("dataset_meta"), meta):
        if isinstance(holder, Mapping):
            names = holder.get("classes") or holder.get("CLASSES")
            if isinstance(names, list | tuple) and all(isinstance(name, str) for name in names):
                return tuple(names)
    return ()
