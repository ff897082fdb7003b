"""Selection of the importer, and the files with overrides."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from realtime_ssd_training.importers import ImportOptions, import_model
from realtime_ssd_training.importers.class_names import (
    COCO_80,
    COCO_91,
    GAP,
    VOC_21,
    numbered_labels,
    read_labels,
)
from realtime_ssd_training.importers.plugin import CHECKPOINTS, ImporterPlugin
from realtime_ssd_training.importers.spec_overrides import apply_overrides, read_anchors

from realtime_ssd.core.boxes import AnchorSpec
from realtime_ssd.core.errors import ModelError, UsageError
from realtime_ssd.core.spec import InputSpec, ModelSpec, spec_to_json
from tests.training.importers.tiny_onnx import tiny_detector

BOXES = np.array([[0.5, 0.4, 0.3, 0.2], [0.1, 0.2, 0.3, 0.4]], np.float32)


def spec(coding: str) -> ModelSpec:
    boxes = AnchorSpec() if coding == "corners" else AnchorSpec.from_array(BOXES)
    return ModelSpec(
        name="a",
        input=InputSpec(8, 8),
        boxes=boxes,
        labels=("background", "x"),
        coding=coding,  # type: ignore[arg-type]
    )


def test_missing_files_and_unknown_suffixes_are_refused(tmp_path: Path) -> None:
    output = tmp_path / "out.onnx"
    with pytest.raises(UsageError, match=r"'.*nothing\.onnx' does not exist"):
        import_model(tmp_path / "nothing.onnx", output)
    (tmp_path / "net.h5").write_bytes(b"x")
    with pytest.raises(UsageError, match=r"unknown suffix '\.h5'; use one of \.onnx, \.caffemodel"):
        import_model(tmp_path / "net.h5", output)


def test_outputs_are_checked_before_the_model_is_read(tmp_path: Path) -> None:
    model, output = tmp_path / "net.ONNX", tmp_path / "out.onnx"
    model.write_bytes(b"damaged")
    with pytest.raises(UsageError, match=r"must end in \.onnx"):
        import_model(model, tmp_path / "out.bin")
    output.write_bytes(b"existing")
    with pytest.raises(UsageError, match="exists; set `overwrite`"):
        import_model(model, output)
    with pytest.raises(ModelError, match="not a readable ONNX file"):
        import_model(model, output, ImportOptions(overwrite=True))
    assert output.read_bytes() == b"existing"


def test_a_failed_import_does_not_create_the_folder_of_the_output(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"damaged")
    with pytest.raises(ModelError, match="not a readable ONNX file"):
        import_model(tmp_path / "net.onnx", tmp_path / "new/out.onnx")
    assert os.listdir(tmp_path) == ["net.onnx"]


def test_an_import_creates_the_folder_of_the_output(tmp_path: Path) -> None:
    onnx.save(tiny_detector("plain"), str(tmp_path / "net.onnx"))
    fields = {"channels": "RGB", "mean": [0, 0, 0], "scale": [1, 1, 1]}
    (tmp_path / "spec.json").write_text(json.dumps({"input": fields}))
    output = tmp_path / "new/deep/out.onnx"
    result = import_model(tmp_path / "net.onnx", output, ImportOptions(spec=tmp_path / "spec.json"))
    assert (result.path, result.family) == (output, "spec")
    assert os.listdir(output.parent) == ["out.onnx"]
    assert onnx.load(str(output)).producer_name == "realtime-ssd"


def test_missing_packages_of_a_plug_in_are_listed() -> None:
    assert ImporterPlugin("numpy", "absent_package", "onnx").missing() == ["absent_package"]
    assert CHECKPOINTS.missing() == []


def test_class_names_have_the_published_positions() -> None:
    assert (len(COCO_80), len(COCO_91), len(VOC_21)) == (81, 91, 21)
    assert {COCO_80[0], COCO_91[0], VOC_21[0]} == {"background"}
    assert (COCO_91[1], COCO_91[13], COCO_91[90]) == ("person", "stop sign", "toothbrush")
    assert [k for k, name in enumerate(COCO_91) if name == GAP] == [
        12, 26, 29, 30, 45, 66, 68, 69, 71, 83,
    ]  # fmt: skip
    assert tuple(name for name in COCO_91 if name != GAP) == COCO_80
    assert (COCO_80[12], VOC_21[15], VOC_21[-1]) == ("stop sign", "person", "tvmonitor")
    assert numbered_labels(3) == ("background", "class 1", "class 2")


@pytest.mark.parametrize(
    ("text", "count"),
    [("cat\ndog\n", 3), ("none\ncat\ndog", 3), (" cat \n\tdog\n\n\n", 3), ("\ncat\ndog\n", 3)],
)
def test_labels_are_read_with_and_without_the_background(
    tmp_path: Path, text: str, count: int
) -> None:
    path = tmp_path / "labels.txt"
    path.write_text(text)
    assert read_labels(path, count) == ("background", "cat", "dog")


def test_empty_lines_between_labels_are_gaps(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_text("cat\n\ndog\n")
    assert read_labels(path, 4) == ("background", "cat", GAP, "dog")


def test_labels_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_text("cat\ndog\n")
    with pytest.raises(UsageError, match=r"has 2 names.* 5 score columns.* 5 with .* 4 without"):
        read_labels(path, 5)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match=r"`labels` file .*cannot be read"):
        read_labels(path, 2)
    with pytest.raises(UsageError, match=r"`labels` file .*cannot be read"):
        read_labels(tmp_path / "absent.txt", 2)


def test_anchors_are_read_from_both_formats(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", BOXES[None].astype(np.float64))
    (tmp_path / "a.json").write_text(json.dumps(BOXES.tolist()))
    for name in ("a.npy", "a.json"):
        boxes = read_anchors(tmp_path / name)
        assert boxes.dtype == np.float32
        np.testing.assert_array_equal(boxes, BOXES)


@pytest.mark.parametrize(
    "text", ["[[1, 2, 3]]", "[[[1,2,3,4]],[[1,2,3,4]]]", "[]", "[[1], 2]", "{"]
)
def test_anchors_of_another_form_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UsageError, match="the `anchors` file"):
        read_anchors(tmp_path / "a.json")


class Trap:
    """An object that creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_pickled_anchors_are_not_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([Trap(tmp_path / "mark")], object), allow_pickle=True)
    with pytest.raises(UsageError, match="cannot be read"):
        read_anchors(tmp_path / "a.npy")
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize(
    ("before", "after", "order"),
    [
        ("corners", "xywh", [0, 1, 2, 3]),
        ("xywh", "xywh", [0, 1, 2, 3]),
        ("yxhw", "yxhw", [1, 0, 3, 2]),
    ],
)
def test_anchors_have_the_axis_order_of_the_offsets(
    tmp_path: Path, before: str, after: str, order: list[int]
) -> None:
    np.save(tmp_path / "a.npy", BOXES)
    changed = apply_overrides(spec(before), ImportOptions(anchors=tmp_path / "a.npy"))
    assert changed.coding == after
    np.testing.assert_array_equal(changed.boxes.boxes(), BOXES[:, order])


def test_fields_of_a_file_replace_only_themselves(tmp_path: Path) -> None:
    path = tmp_path / "spec.json"
    path.write_text('{"name": "b", "input": {"channels": "BGR"}}')
    changed = apply_overrides(spec("xywh"), ImportOptions(spec=path))
    assert (changed.name, changed.input.channels, changed.input.width) == ("b", "BGR", 8)
    assert changed.labels == ("background", "x")
    assert changed.boxes == spec("xywh").boxes


@pytest.mark.parametrize(("fields", "coding"), [({}, "xywh"), ({"coding": "yxhw"}, "yxhw")])
def test_boxes_of_a_file_make_the_models_boxes_offsets(
    tmp_path: Path, fields: dict[str, str], coding: str
) -> None:
    path = tmp_path / "spec.json"
    boxes = json.loads(spec_to_json(spec("xywh")))["boxes"]
    path.write_text(json.dumps({"boxes": boxes, **fields}))
    changed = apply_overrides(spec("corners"), ImportOptions(spec=path))
    assert changed.coding == coding
    np.testing.assert_array_equal(changed.boxes.boxes(), BOXES)
