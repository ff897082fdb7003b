"""SSD300 on ResNet-50 of NVIDIA's DeepLearningExamples.

Its heads list the values of all boxes of a cell by coordinate or class first, and its default boxes
by size first; the rows of the heads are reordered to the order of this project.
"""

from __future__ import annotations

from torch import Tensor

from realtime_ssd_training.importers.class_names import numbered_labels
from realtime_ssd_training.importers.pytorch_family import Family, Weights, prefix_renamer
from realtime_ssd_training.models import SSD, create

__all__ = ["FAMILIES"]

_BODY = "feature_extractor.feature_extractor."
_BLOCKS = (3, 4, 6)


def _names() -> dict[str, str]:
    table = {f"{_BODY}0": "backbone.stem.0", f"{_BODY}1": "backbone.stem.1"}
    number = 0
    for stage, count in enumerate(_BLOCKS, start=4):
        for index in range(count):
            old, new = f"{_BODY}{stage}.{index}", f"backbone.blocks.{number}"
            for k in range(3):
                table[f"{old}.conv{k + 1}"] = f"{new}.layers.{k}.0"
                table[f"{old}.bn{k + 1}"] = f"{new}.layers.{k}.1"
            table[f"{old}.downsample"] = f"{new}.shortcut"
            number += 1
    for k in range(5):
        for index, new_name in {0: "0.0", 1: "0.1", 3: "1.0", 4: "1.1"}.items():
            table[f"additional_blocks.{k}.{index}"] = f"backbone.extras.{k}.{new_name}"
    for k in range(6):
        table |= {f"conf.{k}": f"score_heads.{k}", f"loc.{k}": f"offset_heads.{k}"}
    return table


def _reorder(weights: Weights, classes: int) -> dict[str, Tensor]:
    """Return the weights with the rows of the heads by box instead of by column."""
    reordered = dict(weights)
    for name, value in weights.items():
        columns = {"score_heads": classes, "offset_heads": 4}.get(name.partition(".")[0])
        if columns and value.shape[0] % columns == 0:
            rest = value.shape[1:]
            by_column = value.view(columns, -1, *rest)
            reordered[name] = by_column.transpose(0, 1).reshape(value.shape)
    return reordered


def _build(_: Weights, classes: int) -> SSD:
    return create("ssd300_resnet50", numbered_labels(classes))


FAMILIES = {
    "nvidia": Family(
        (f"{_BODY}4.0.conv1.weight", "additional_blocks.0.0.weight", "conf.0.bias"),
        prefix_renamer(_names()),
        _build,
        "bias",
        "SSD300 ResNet-50 of NVIDIA's DeepLearningExamples",
        prepare=_reorder,
    ),
}
