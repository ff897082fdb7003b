"""`ModelSpec` and its JSON form, which must never change within a format."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import onnx
import pytest

from realtime_ssd.core.boxes import AnchorLayer, AnchorSpec
from realtime_ssd.core.errors import ModelError
from realtime_ssd.core.spec import (
    METADATA_KEY,
    InputSpec,
    ModelSpec,
    Thresholds,
    attach_spec,
    read_spec,
    spec_from_json,
    spec_to_json,
)

SPEC = ModelSpec(
    name="m",
    input=InputSpec(4, 3, "BGR", (1.0, 2.0, 3.0), (0.5, 0.25, 1.0), "letterbox", 7, "data"),
    boxes=AnchorSpec((AnchorLayer(1, 2, 1.0, 0.5, ((0.5, 0.25),)),), clip=True, rounding=0.5),
    labels=("background", "car"),
    coding="yxhw",
    activation="sigmoid",
    clip_before_nms=True,
    thresholds=Thresholds(0.3, 0.6, 100, 50),
    description="A test.",
)
TEXT = (
    '{"format":1,"name":"m","input":{"width":4,"height":3,"channels":"BGR","mean":[1.0,2.0,3.0],'
    '"scale":[0.5,0.25,1.0],"resize":"letterbox","fill":7,"name":"data"},"boxes":{"layers":['
    '{"rows":1,"columns":2,"step_y":1.0,"step_x":0.5,"sizes":[[0.5,0.25]],"offset":0.5}],'
    '"clip":true,"clamp":false,"rounding":0.5,"explicit":""},"labels":["background","car"],'
    '"variances":[0.1,0.1,0.2,0.2],"coding":"yxhw","activation":"sigmoid","background":0,'
    '"clip_before_nms":true,"scores_output":"scores","offsets_output":"offsets","thresholds":'
    '{"score":0.3,"nms":0.6,"top_k":100,"keep":50},"description":"A test."}'
)
"""Format 1, byte for byte."""


def test_json_of_format_1() -> None:
    assert spec_to_json(SPEC) == TEXT
    assert spec_from_json(TEXT) == SPEC


def test_defaults_are_those_of_the_paper() -> None:
    spec = ModelSpec("m", InputSpec(300, 300), SPEC.boxes, SPEC.labels)
    assert asdict(spec.thresholds) == {
        "score_threshold": 0.5,
        "iou_threshold": 0.45,
        "pre_nms_top_k": 400,
        "max_detections": 200,
        "class_scores": (),
        "agnostic_nms": False,
    }
    assert (spec.variances, spec.coding, spec.activation) == (
        (0.1, 0.1, 0.2, 0.2),
        "xywh",
        "softmax",
    )
    assert (spec.background, spec.clip_before_nms) == (0, False)
    assert spec.input == InputSpec(300, 300, "RGB", (0, 0, 0), (1, 1, 1), "warp", 114, "image")
    assert (spec.scores_output, spec.offsets_output) == ("scores", "offsets")
    assert (spec.num_classes, spec.num_boxes) == (2, 2)


def test_with_thresholds_keeps_what_is_not_given() -> None:
    changed = SPEC.with_thresholds(score_threshold=0.0, pre_nms_top_k=None)
    assert changed.thresholds == replace(SPEC.thresholds, score_threshold=0.0)
    assert replace(changed, thresholds=SPEC.thresholds) == SPEC


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"input": InputSpec(0, 1)}, "the input size must be positive"),
        ({"input": InputSpec(1, 0)}, "the input size must be positive"),
        ({"input": InputSpec(1, 1, channels="RBG")}, "channels must be RGB or BGR"),  # type: ignore[arg-type]
        ({"input": InputSpec(1, 1, resize="crop")}, "resize must be warp or letterbox"),  # type: ignore[arg-type]
        ({"coding": "x"}, "coding must be xywh, yxhw or corners"),
        ({"activation": "x"}, "unknown score activation"),
        ({"labels": (), "background": None}, "it has no labels"),
        ({"background": 2}, "the background column is outside the labels"),
        ({"background": -1}, "the background column is outside the labels"),
        ({"boxes": AnchorSpec()}, "it has no default boxes"),
        ({"thresholds": Thresholds(score_threshold=1.1)}, "thresholds must be between 0 and 1"),
        ({"thresholds": Thresholds(score_threshold=-0.1)}, "thresholds must be between 0 and 1"),
        ({"thresholds": Thresholds(iou_threshold=1.1)}, "thresholds must be between 0 and 1"),
        ({"thresholds": Thresholds(pre_nms_top_k=0)}, "pre_nms_top_k and max_detections must"),
        ({"thresholds": Thresholds(max_detections=0)}, "pre_nms_top_k and max_detections must"),
    ],
)
def test_contradictions_are_rejected(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ModelError, match=rf"specification of model 'm' is invalid: {problem}"):
        replace(SPEC, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"input": InputSpec(1, 1)},
        {"background": None},
        {"background": 1},
        {"boxes": AnchorSpec(), "coding": "corners"},
        {"boxes": AnchorSpec((AnchorLayer(1, 1, 1.0, 1.0, ((0.5, 0.5),)),))},
        {"thresholds": Thresholds(0.0, 0.0, 1, 1)},
        {"thresholds": Thresholds(1.0, 1.0, 1, 1)},
        {"activation": "none"},
        {"activation": "softmax"},
    ],
)
def test_limits_are_accepted(changes: dict[str, Any]) -> None:
    spec = replace(SPEC, **changes)
    assert spec_from_json(spec_to_json(spec)) == spec


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "specification is damaged: its text is not JSON; import the model again"),
        ("[]", "damaged: it must be a JSON object, not an array of 0; import the model again"),
        ('{"name":"m"}', "the model's specification is damaged; import the model again"),
        ('{"format":2}', "has format 2, this program reads format 1; update realtime-ssd"),
        ('{"format":1}', "damaged: field 'name' is missing; import the model again"),
        (TEXT.replace('"clip"', '"clop"'), "damaged: field 'boxes.clop' is unknown"),
        (TEXT.replace('"nms"', '"iou"'), "damaged: field 'thresholds.iou' is unknown"),
    ],
)
def test_damaged_json(text: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        spec_from_json(text)


def test_metadata_of_an_onnx_file(tiny: Path, tmp_path: Path) -> None:
    model = onnx.load(str(tiny))
    model.metadata_props.add(key="other", value="kept")
    attach_spec(model, SPEC)
    onnx.save(model, str(tmp_path / "m.onnx"))
    assert read_spec(tmp_path / "m.onnx") == SPEC
    keys = [entry.key for entry in onnx.load(str(tmp_path / "m.onnx")).metadata_props]
    assert sorted(keys) == sorted([METADATA_KEY, "other"])


def test_files_without_specification(tiny: Path, tmp_path: Path) -> None:
    model = onnx.load(str(tiny))
    del model.metadata_props[:]
    onnx.save(model, str(tmp_path / "bare.onnx"))
    (tmp_path / "empty.onnx").touch()
    (tmp_path / "text.onnx").write_text("text")
    for name, message in (
        (
            "bare.onnx",
            r"has no model specification; run 'realtime-ssd import .*bare\.onnx --output",
        ),
        ("empty.onnx", "is not an ONNX model: its graph is empty"),
        ("text.onnx", "is not a readable ONNX file"),
        ("none.onnx", r"model file '.*none\.onnx' does not exist"),
    ):
        with pytest.raises(ModelError, match=message):
            read_spec(tmp_path / name)


def test_json_is_plain() -> None:
    assert json.loads(TEXT)["thresholds"] == {"score": 0.3, "nms": 0.6, "top_k": 100, "keep": 50}
