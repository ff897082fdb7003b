"""Graphs of TensorFlow's Object Detection API, and OpenCV's face detector."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from realtime_ssd_training.importers import ImportOptions, import_model
from realtime_ssd_training.importers.tensorflow_constants import FUNCTIONS, dequantize
from realtime_ssd_training.importers.tensorflow_labels import parse_label_map

from realtime_ssd.core.boxes import to_corners
from realtime_ssd.core.errors import ModelError, UsageError
from tests.training.importers import tensorflow_builder as builder
from tests.training.importers.conftest import ImportedModel, assert_heads_close, read_photo

LABEL_MAP = """
item { id: 1 name: "/m/1" display_name: "cat" }
item {
  name: 'dog'
  id: 3
}
"""


def import_graph(writer: builder.GraphWriter, folder: Path) -> ImportedModel:
    file = builder.write(writer, folder / "frozen_inference_graph.pb")
    import_model(file, folder / "out.onnx")
    return ImportedModel(folder / "out.onnx")


def test_a_frozen_graph_is_converted_with_everything_in_it(tmp_path: Path) -> None:
    imported = import_graph(builder.detector(), tmp_path)
    spec = imported.spec
    assert (spec.input.width, spec.input.height, spec.input.channels) == (16, 16, "RGB")
    assert spec.input.mean == pytest.approx((127.5,) * 3)
    assert spec.input.scale == pytest.approx((1 / 127.5,) * 3)
    corners = to_corners(spec.boxes.boxes())[:, [1, 0, 3, 2]]
    np.testing.assert_allclose(corners, builder.default_corners(), atol=1e-6)
    assert spec.variances == pytest.approx((0.1, 0.1, 0.2, 0.2))
    assert (spec.coding, spec.activation, spec.background) == ("yxhw", "sigmoid", 0)
    limits = spec.thresholds
    assert (limits.iou_threshold, limits.score_threshold) == (0.55, 0.5)
    assert limits.pre_nms_top_k == 60
    assert spec.labels == ("background", "class 1", "class 2", "class 3")
    batch = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    expected = [head.numpy() for head in builder.expected_heads(batch)]
    assert_heads_close(imported.heads(batch.numpy()), expected)
    # The normalization is part of the convolution.
    operators = {node.op_type for node in onnx.load(str(tmp_path / "out.onnx")).graph.node}
    assert not operators & {"BatchNormalization", "Mul", "Sub"}


def test_other_scales_and_a_softmax_are_read_from_the_graph(tmp_path: Path) -> None:
    writer = builder.detector(sigmoid=False, scales=(8.0, 4.0, 2.0, 1.0))
    spec = import_graph(writer, tmp_path).spec
    assert spec.variances == pytest.approx((1 / 4, 1 / 8, 1, 1 / 2))
    assert spec.activation == "softmax"


def test_a_saved_model_with_constant_weights_is_converted(tmp_path: Path) -> None:
    folder = builder.write_saved_model(builder.detector(), tmp_path / "export/saved_model")
    (folder / "label_map.pbtxt").write_text(LABEL_MAP)
    for path in (folder, folder / "saved_model.pb"):
        result = import_model(path, tmp_path / "out.onnx", ImportOptions(overwrite=True))
        assert result.spec.labels == ("background", "cat", "???", "dog")
        assert result.labels_origin.endswith("label_map.pbtxt")
    (folder / "label_map.pbtxt").unlink()
    assert import_model(folder.parent, tmp_path / "b.onnx").spec.num_classes == 4


def test_a_label_map_of_another_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "map.pbtxt").write_text('item { id: 9 name: "x" }')
    with pytest.raises(UsageError, match="has ids up to 9, but the model has 4 score columns"):
        import_graph(builder.detector(), tmp_path)
    assert parse_label_map("nothing") == {}


def test_graphs_that_cannot_be_converted_are_refused(tmp_path: Path) -> None:
    def refused(writer: builder.GraphWriter, sentence: str) -> None:
        with pytest.raises(ModelError, match=sentence):
            import_graph(writer, tmp_path)

    unknown = builder.detector()
    next(n for n in unknown.graph.node if n.name == "features").op = "Elu"
    refused(unknown, "'features' of the TensorFlow graph is of the type Elu, which cannot be")
    dynamic = builder.detector()
    next(n for n in dynamic.graph.node if n.name == "Preprocessor/size").op = "Placeholder"
    refused(dynamic, "does not resize images to one fixed size; export it with fixed_shape_res")
    variables = builder.detector()
    variables.node("VarHandleOp", "weights")
    refused(variables, "keeps its weights in variables; export it as a TFLite file")
    missing = builder.detector()
    next(n for n in missing.graph.node if n.name == "norm").input[0] = "nothing"
    refused(missing, "has no node 'nothing'; it may be damaged")
    other = builder.GraphWriter()
    other.const("a", 1.0)
    refused(other, "is not an SSD of TensorFlow's Object Detection API")
    cut = builder.detector()
    weights = next(n for n in cut.graph.node if n.name == "stem/weights").attr["value"].tensor
    weights.tensor_content = weights.tensor_content[:-8]
    with pytest.raises(ModelError):
        import_graph(cut, tmp_path)
    assert not (tmp_path / "out.onnx").exists()


@pytest.mark.parametrize("size", [0, 1, 40, 2000])
def test_damaged_files_are_refused(size: int, tmp_path: Path) -> None:
    file = builder.write(builder.detector(), tmp_path / "a.pb")
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(ModelError):
        import_model(file, tmp_path / "out.onnx")


def test_folders_without_a_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"neither saved_model\.pb nor frozen_inference_graph"):
        import_model(tmp_path, tmp_path / "out.onnx")
    builder.write(builder.detector(), tmp_path / "a.pb")
    with pytest.raises(UsageError, match="`family` 'x' is unknown for TensorFlow graphs"):
        import_model(tmp_path / "a.pb", tmp_path / "out.onnx", ImportOptions(family="x"))


def test_constants_are_evaluated_like_tensorflow() -> None:
    writer = builder.GraphWriter()
    writer.node(
        "StridedSlice", "s", "a", "b", "e", "t", begin_mask=1, new_axis_mask=2, shrink_axis_mask=4
    )
    source = np.arange(24).reshape(4, 3, 2)
    begin, end, step = np.array([9, 0, 1]), np.array([3, 0, 0]), np.array([2, 1, 1])
    result = FUNCTIONS["StridedSlice"](writer.graph.node[0], [source, begin, end, step])
    np.testing.assert_array_equal(result, source[:3:2, np.newaxis, 1])
    values = np.array([0, 128, 255], np.uint8)
    low, high = np.float32(-1.0), np.float32(1.55)
    # Steps of 0.01; the minimum is a whole number of steps.
    np.testing.assert_allclose(
        dequantize(writer.graph.node[0], [values, np.array(low), np.array(high)]),
        [-1.0, 0.28, 1.55],
        atol=1e-6,
    )


def test_the_face_detector_of_opencv_equals_stored_results(
    shared_data: Path, tmp_path: Path
) -> None:
    source = shared_data / "weights/ssd_face_opencv"
    result = import_model(source / "opencv_face_detector_uint8.pb", tmp_path / "face.onnx")
    assert (result.family, result.dynamic_batch) == ("opencv-face", True)
    assert result.spec.labels == ("background", "face")
    assert result.spec.boxes.count == 8892
    imported = ImportedModel(tmp_path / "face.onnx")
    golden = json.loads((shared_data / "golden/ssd_face.json").read_text())["images"]
    for name, record in golden.items():
        expected = record["detections"]["opencv_face_detector_uint8.pb"]
        image = read_photo(shared_data / name)
        height, width = image.shape[:2]
        found = imported.detect(image)
        assert len(found) == len(expected)
        for box, score, item in zip(found.boxes, found.scores, expected, strict=True):
            assert score == pytest.approx(item["score"], abs=1e-4)
            size = [width, height, width, height]
            np.testing.assert_allclose(box / size, item["box_norm_xyxy"], atol=1e-3)


def test_the_face_detector_needs_its_description(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "weights/ssd_face_opencv/opencv_face_detector_uint8.pb"
    shutil.copy(source, tmp_path / "face.pb")
    with pytest.raises(UsageError, match=r"has no default boxes; set `prototxt` to the descrip"):
        import_model(tmp_path / "face.pb", tmp_path / "out.onnx")
    (tmp_path / "other.pbtxt").write_text("node { name: 1 }")
    with pytest.raises(UsageError, match=r"other\.pbtxt' cannot be read"):
        import_model(tmp_path / "face.pb", tmp_path / "out.onnx")
