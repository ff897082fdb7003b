"""SSDs in ONNX: face detectors with golden boxes, and small graphs built here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper
from realtime_ssd_training.importers import ImportOptions, import_model, onnx_graph
from realtime_ssd_training.importers.onnx_decoding import check_corners, find_decoding
from realtime_ssd_training.importers.onnx_model import families
from realtime_ssd_training.importers.ultralight_spec import face_boxes

from realtime_ssd.core.errors import ModelError, UsageError
from realtime_ssd.core.spec import METADATA_KEY
from tests.training.importers.conftest import ImportedModel, assert_heads_close, read_photo
from tests.training.importers.tiny_onnx import BOXES, CLASSES, SIZE, anchors, tiny_detector

FACES = "weights/ssd_face_ultralight"
INPUT = {"channels": "BGR", "mean": [104, 117, 123], "scale": [1, 1, 1]}


@pytest.fixture
def spec_file(tmp_path: Path) -> Path:
    path = tmp_path / "spec.json"
    path.write_text(json.dumps({"name": "tiny", "input": INPUT}))
    return path


def imported(tmp_path: Path, model: ModelProto, options: ImportOptions) -> ImportedModel:
    onnx.save(model, str(tmp_path / "in.onnx"))
    result = import_model(tmp_path / "in.onnx", tmp_path / "out.onnx", options)
    assert result.dynamic_batch
    return ImportedModel(tmp_path / "out.onnx")


@pytest.mark.parametrize("name", ["version-slim-320", "version-RFB-320"])
def test_faces_equal_the_golden_ones(shared_data: Path, tmp_path: Path, name: str) -> None:
    result = import_model(shared_data / FACES / f"{name}.onnx", tmp_path / "face.onnx")
    assert (result.family, result.dynamic_batch) == ("ultralight", True)
    assert result.spec.boxes.explicit == ""
    model = ImportedModel(tmp_path / "face.onnx")
    golden = json.loads((shared_data / "golden/ssd_face.json").read_text())["images"]
    for photo, entry in golden.items():
        image = read_photo(shared_data / photo)
        expected = entry["detections"][f"{name}.onnx"]
        detections = model.detect(image)
        assert len(detections) == len(expected) > 0, photo
        size = np.tile([image.shape[1], image.shape[0]], 2)
        for a, b in zip(detections, expected, strict=True):
            assert a.score == pytest.approx(b["score"], abs=1e-4)
            clipped = np.clip(b["box_norm_xyxy"], 0, 1) * size
            assert a.box == pytest.approx(clipped.tolist(), abs=0.05)


def test_raw_and_decoded_exports_become_the_same_model(shared_data: Path, tmp_path: Path) -> None:
    models = []
    for number, suffix in enumerate(("", "_without_postprocessing")):
        output = tmp_path / f"{number}.onnx"
        import_model(shared_data / FACES / f"version-RFB-320{suffix}.onnx", output)
        models.append(ImportedModel(output))
    assert models[0].spec == models[1].spec
    batch = np.random.default_rng(0).normal(size=(2, 3, 240, 320)).astype(np.float32)
    assert_heads_close(models[0].heads(batch), models[1].heads(batch))


def test_face_boxes_equal_those_inside_the_graph(shared_data: Path) -> None:
    model = onnx_graph.load(shared_data / FACES / "version-slim-320.onnx")
    decoding = find_decoding(model, "boxes", 4420, 320, 240)
    assert decoding is not None
    assert decoding.variances == pytest.approx((0.1, 0.1, 0.2, 0.2))
    np.testing.assert_allclose(face_boxes(320, 240).boxes(), decoding.default_boxes, atol=1e-6)


@pytest.mark.parametrize("kind", ["plain", "pixels", "tensorflow", "centers"])
def test_a_decoding_is_removed_from_the_graph(tmp_path: Path, spec_file: Path, kind: str) -> None:
    options = ImportOptions(spec=spec_file)
    model = imported(tmp_path, tiny_detector(kind, activation="Softmax"), options)
    spec = model.spec
    assert spec.activation == "none"
    assert spec.coding == ("yxhw" if kind == "tensorflow" else "xywh")
    np.testing.assert_allclose(spec.boxes.boxes(), anchors(), atol=1e-6)
    assert spec.variances == pytest.approx((0.1, 0.1, 0.2, 0.2))
    batch = np.random.default_rng(1).normal(size=(1, 3, SIZE, SIZE)).astype(np.float32)
    (raw,) = onnx_graph.run(tiny_detector(), {"in": batch}, ["loc"])
    np.testing.assert_allclose(model.heads(batch)[1], raw, atol=1e-6)
    graph = onnx.load(str(tmp_path / "out.onnx")).graph
    assert "Exp" not in {node.op_type for node in graph.node}
    assert "half" not in {weight.name for weight in graph.initializer}


def test_raw_heads_use_anchors_and_labels_from_files(tmp_path: Path, spec_file: Path) -> None:
    np.save(tmp_path / "anchors.npy", anchors())
    (tmp_path / "labels.txt").write_text("cat\ndog\n")
    options = ImportOptions(
        spec=spec_file, anchors=tmp_path / "anchors.npy", labels=tmp_path / "labels.txt"
    )
    spec = imported(tmp_path, tiny_detector(), options).spec
    assert spec.labels == ("background", "cat", "dog")
    assert (spec.activation, spec.coding, spec.name) == ("softmax", "xywh", "tiny")
    assert (spec.input.channels, spec.input.mean) == ("BGR", (104, 117, 123))
    np.testing.assert_array_equal(spec.boxes.boxes(), anchors())


def test_without_overrides_the_name_is_that_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "spec.json").write_text(json.dumps({"input": INPUT}))
    spec = imported(
        tmp_path, tiny_detector("plain"), ImportOptions(spec=tmp_path / "spec.json")
    ).spec
    assert (spec.name, spec.labels) == ("in", ("background", "class 1", "class 2"))


def test_raw_offsets_without_anchors_are_refused(tmp_path: Path, spec_file: Path) -> None:
    with pytest.raises(ModelError, match=r"'loc' is neither corners .*set `anchors`"):
        imported(tmp_path, tiny_detector(), ImportOptions(spec=spec_file))
    assert not (tmp_path / "out.onnx").exists()


@pytest.mark.parametrize(
    ("activation", "expected"), [("Softmax", "none"), ("Sigmoid", "none"), ("Relu", "softmax")]
)
def test_the_activation_is_recognized(
    tmp_path: Path, spec_file: Path, activation: str, expected: str
) -> None:
    model = tiny_detector("plain", activation=activation)
    model.graph.node.append(helper.make_node("Identity", ["probabilities"], ["copy"]))
    model.graph.output[1].name = "copy"
    spec = imported(tmp_path, model, ImportOptions(spec=spec_file)).spec
    assert spec.activation == expected


def test_heads_of_an_unknown_family_are_described(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"loc 1×32×4, logits 1×32×3.*`spec`.*`anchors`"):
        imported(tmp_path, tiny_detector(), ImportOptions())


def test_a_model_of_this_program_needs_no_import(tmp_path: Path) -> None:
    model = tiny_detector()
    model.metadata_props.add(key=METADATA_KEY, value="{}")
    with pytest.raises(UsageError, match="needs no import"):
        imported(tmp_path, model, ImportOptions())


def test_graphs_without_a_pair_of_heads_are_described(tmp_path: Path) -> None:
    model = tiny_detector()
    del model.graph.output[0]
    with pytest.raises(ModelError, match="has the outputs logits 1×32×3; an SSD has"):
        imported(tmp_path, model, ImportOptions())


def test_equal_shapes_are_told_apart_by_their_names(tmp_path: Path, spec_file: Path) -> None:
    model = tiny_detector("plain")
    constants = {weight.name: weight for weight in model.graph.initializer}
    kernel = np.zeros((8, 3, 4, 4), np.float32)
    constants["logits.w"].CopyFrom(numpy_helper.from_array(kernel, "logits.w"))
    shape = numpy_helper.from_array(np.array([1, BOXES, 4]), "logits.shape")
    constants["logits.shape"].CopyFrom(shape)
    model.graph.output[1].type.tensor_type.shape.dim[2].dim_value = 4
    spec = imported(tmp_path, model, ImportOptions(spec=spec_file)).spec
    assert spec.num_classes == 4
    np.testing.assert_allclose(spec.boxes.boxes(), anchors(), atol=1e-6)


@pytest.mark.parametrize(
    "shape",
    [(1, 1, SIZE, SIZE), (2, 3, SIZE, SIZE), (1, 3, None, SIZE), (1, 3, SIZE, None), (1, 3, SIZE)],
)
def test_inputs_that_are_not_one_image_are_refused(
    tmp_path: Path, shape: tuple[int | None, ...]
) -> None:
    kernel = numpy_helper.from_array(np.ones((1,), np.float32), "one")
    graph = helper.make_graph(
        [helper.make_node("Mul", ["in", "one"], ["out"])],
        "other",
        [helper.make_tensor_value_info("in", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, shape)],
        [kernel],
    )
    opset = helper.make_opsetid("", 17)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=8)
    described = "×".join("[?]" if size is None else str(size) for size in shape)
    with pytest.raises(
        ModelError, match=f"has the inputs in {described} and the outputs out .*one input"
    ):
        imported(tmp_path, model, ImportOptions())


def test_a_dynamic_batch_is_accepted(tmp_path: Path, spec_file: Path) -> None:
    model = tiny_detector("plain")
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "n"
    for weight in model.graph.initializer:
        if weight.name.endswith(".shape"):
            shape = onnx_graph.to_array(weight)
            weight.CopyFrom(numpy_helper.from_array(np.array([0, *shape[1:]]), weight.name))
    assert imported(tmp_path, model, ImportOptions(spec=spec_file)).spec.num_boxes == BOXES


def test_weights_that_are_listed_as_inputs_are_not_inputs(tmp_path: Path, spec_file: Path) -> None:
    model = tiny_detector("plain")
    model.graph.input.append(
        helper.make_tensor_value_info("loc.w", TensorProto.FLOAT, [8, 3, 4, 4])
    )
    assert imported(tmp_path, model, ImportOptions(spec=spec_file)).spec.num_boxes == BOXES


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"anchors": np.zeros((5, 4))}, r"requires \(1, 5, 4\)|requires \(1, 5, 3\)"),
        ({"anchors": np.zeros((5, 3))}, "`anchors` .* P × 4"),
        ({"anchors": np.full((BOXES, 4), np.inf)}, "P × 4 finite"),
        ({"anchors": "not an array"}, "`anchors` .*cannot be read"),
        ({"labels": "only one"}, "`labels` .*has 1 names.* 3 score columns"),
        ({"spec": "{}"}, "`spec` .*channels"),
        ({"spec": '{"input": 3}'}, "`spec` .*channels"),
        ({"spec": '{"input": {"channels": "RGB", "mean": [0, 0, 0]}}'}, "`spec` .*channels"),
        ({"spec": "["}, "`spec` .*cannot be read"),
        ({"spec": "[]"}, "`spec` .*JSON object"),
        ({"spec": json.dumps({"input": INPUT, "labels": 3})}, "`spec` .*does not fit"),
        ({"spec": json.dumps({"input": INPUT, "thresholds": 3})}, "`spec` .*does not fit"),
        ({"family": "yolo"}, f"`family` 'yolo' .*choose from {', '.join(families())}"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    tmp_path: Path, spec_file: Path, options: dict[str, Any], sentence: str
) -> None:
    fields: dict[str, Any] = {"spec": spec_file, "anchors": tmp_path / "good.npy"}
    np.save(fields["anchors"], anchors())
    for key, value in options.items():
        fields[key] = tmp_path / f"{key}.npy"
        if isinstance(value, np.ndarray):
            np.save(fields[key], value)
        elif key == "family":
            fields[key] = value
        else:
            fields[key].write_text(value)
    with pytest.raises((UsageError, ModelError), match=sentence):
        imported(tmp_path, tiny_detector(), ImportOptions(**fields))
    assert not (tmp_path / "out.onnx").exists()


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(tiny_detector().SerializeToString()[:300])
    with pytest.raises(ModelError, match="not a readable ONNX file"):
        import_model(broken, tmp_path / "out.onnx")


def test_weights_that_are_not_finite_are_refused(tmp_path: Path, spec_file: Path) -> None:
    model = tiny_detector("plain")
    for weight in model.graph.initializer:
        if weight.name == "logits.w":
            values: NDArray[Any] = np.full_like(onnx_graph.to_array(weight), np.nan)
            weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    with pytest.raises(ModelError, match="the scores of 'tiny' are not finite"):
        imported(tmp_path, model, ImportOptions(spec=spec_file))


def test_a_batch_that_the_graph_fixes_remains_one(tmp_path: Path, spec_file: Path) -> None:
    model = tiny_detector("plain")
    zeros = numpy_helper.from_array(np.zeros((1, BOXES, 4), np.float32), "zeros")
    model.graph.initializer.extend([zeros, numpy_helper.from_array(np.array([0]), "batch")])
    model.graph.node.insert(6, helper.make_node("Concat", ["loc", "zeros"], ["two"], axis=0))
    model.graph.node.insert(7, helper.make_node("ReduceSum", ["two", "batch"], ["one"], keepdims=1))
    for node in model.graph.node[8:]:
        node.input[:] = ["one" if name == "loc" else name for name in node.input]
    onnx.save(model, str(tmp_path / "in.onnx"))
    result = import_model(
        tmp_path / "in.onnx", tmp_path / "out.onnx", ImportOptions(spec=spec_file)
    )
    assert not result.dynamic_batch
    assert ImportedModel(tmp_path / "out.onnx").session.get_inputs()[0].shape[0] == 1


def test_shapes_in_constant_nodes_become_dynamic(tmp_path: Path, spec_file: Path) -> None:
    model = tiny_detector("plain")
    shapes = [weight for weight in model.graph.initializer if weight.name.endswith(".shape")]
    for index, weight in enumerate(shapes):
        model.graph.node.insert(
            index, helper.make_node("Constant", [], [weight.name], value=weight)
        )
        model.graph.initializer.remove(weight)
    batch = np.random.default_rng(2).normal(size=(2, 3, SIZE, SIZE)).astype(np.float32)
    scores, _ = imported(tmp_path, model, ImportOptions(spec=spec_file)).heads(batch)
    assert scores.shape == (2, BOXES, CLASSES)


def test_tensors_with_the_names_of_the_heads_are_renamed(tmp_path: Path, spec_file: Path) -> None:
    model = tiny_detector("plain")
    onnx_graph.rename(model, "logits.c", "scores")
    onnx_graph.rename(model, "loc.w", "image")
    batch = np.random.default_rng(2).normal(size=(1, 3, SIZE, SIZE)).astype(np.float32)
    heads = imported(tmp_path, model, ImportOptions(spec=spec_file)).heads(batch)
    expected = onnx_graph.run(tiny_detector(), {"in": batch}, ["logits", "loc"])
    assert_heads_close(heads, expected)


def test_other_box_computations_are_not_taken_for_the_ssd_decoding() -> None:
    plain = tiny_detector("plain")
    assert find_decoding(plain, "boxes", BOXES, SIZE, SIZE) is not None
    for node in plain.graph.node:
        if node.op_type == "Exp":
            node.op_type = "Softplus"
    assert find_decoding(plain, "boxes", BOXES, SIZE, SIZE) is None
    squared = tiny_detector("plain")
    exponential = next(node for node in squared.graph.node if node.op_type == "Exp")
    exponential.output[0] = "root"
    index = list(squared.graph.node).index(exponential) + 1
    squared.graph.node.insert(index, helper.make_node("Mul", ["root", "xy"], ["wh.e"]))
    assert find_decoding(squared, "boxes", BOXES, SIZE, SIZE) is None


CORNERS = np.array([[0.1, 0.2, 0.5, 0.9]] * 100, np.float32)


@pytest.mark.parametrize(
    "boxes",
    [CORNERS * 300, CORNERS[:, [2, 3, 0, 1]], CORNERS[:, [0, 3, 2, 1]], CORNERS * [1, 1, 30, 1]],
    ids=["pixels", "reversed", "one axis reversed", "beyond the image"],
)
def test_boxes_that_are_not_corners_in_fractions_are_refused(boxes: NDArray[np.float32]) -> None:
    check_corners(CORNERS, "boxes")
    with pytest.raises(ModelError, match="the output 'boxes' is neither corners"):
        check_corners(boxes, "boxes")


def test_a_graph_without_inputs_is_described(tmp_path: Path) -> None:
    value = numpy_helper.from_array(np.ones((1, 2), np.float32))
    graph = helper.make_graph(
        [helper.make_node("Constant", [], ["out"], value=value)],
        "constant",
        [],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 2])],
    )
    opset = helper.make_opsetid("", 17)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=8)
    with pytest.raises(ModelError, match="has the inputs none and the outputs out 1×2; export"):
        imported(tmp_path, model, ImportOptions())
