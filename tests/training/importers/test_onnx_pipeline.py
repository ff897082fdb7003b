"""ONNX graphs that resize images, decode boxes and suppress them, as tf2onnx writes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper
from realtime_ssd_training.importers import ImportOptions, import_model, onnx_graph

from realtime_ssd.core.errors import ModelError, UsageError
from tests.training.importers.conftest import ImportedModel
from tests.training.importers.tiny_onnx import BOXES, CLASSES, SIZE, anchors, tiny_detector


def with_pipeline(*, size: int = SIZE, nhwc: bool = True, loop: bool = False) -> ModelProto:
    """Return the tiny detector behind a resize, with NMS after it; images are uint8."""
    model = tiny_detector("tensorflow", activation="Sigmoid")
    graph = model.graph
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = "scaled" if name == "in" else name
    constants = {
        "p.size": np.array([1, 3, size, size]),
        "p.half": np.array(2 / 255, np.float32),
        "p.one": np.array(1, np.float32),
        "p.most": np.array([100]),
        "p.iou": np.array([0.6], np.float32),
    }
    node = helper.make_node
    before = [
        node("Cast", ["image_tensor"], ["float"], to=TensorProto.FLOAT),
        node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]),
        node("Resize", ["planes", "", "", "p.size"], ["resized"], mode="linear"),
        node("Mul", ["p.half", "resized"], ["halved"]),
        node("Sub", ["halved", "p.one"], ["scaled"]),
    ]
    after = [
        node("Transpose", ["probabilities"], ["by_class"], perm=[0, 2, 1]),
        node("NonMaxSuppression", ["boxes", "by_class", "p.most", "p.iou"], ["selected"]),
    ]
    if loop:
        after.append(_endless_loop())
    nodes = [*before, *graph.node, *after]
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend(nodes)
    shape = ["n", "h", "w", 3]
    graph.input.append(helper.make_tensor_value_info("image_tensor", TensorProto.UINT8, shape))
    graph.output.append(helper.make_tensor_value_info("selected", TensorProto.INT64, ["k", 3]))
    graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in constants.items())
    return model


def _endless_loop() -> onnx.NodeProto:
    """Return a loop that would never end."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Identity", ["k"], ["count"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("k", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("count", TensorProto.INT64, []),
        ],
    )
    return helper.make_node("Loop", ["", ""], ["counts"], body=body)


def save(model: ModelProto, folder: Path) -> Path:
    onnx.save(model, str(folder / "model.onnx"))
    return folder / "model.onnx"


@pytest.mark.parametrize("loop", [False, True])
def test_the_network_is_extracted_with_scaling_and_default_boxes(
    tmp_path: Path, loop: bool
) -> None:
    result = import_model(save(with_pipeline(loop=loop), tmp_path), tmp_path / "out.onnx")
    assert result.family == "tensorflow"
    spec = result.spec
    assert (spec.input.width, spec.input.height, spec.input.channels) == (SIZE, SIZE, "RGB")
    assert spec.input.mean == pytest.approx((127.5,) * 3, abs=1e-3)
    assert spec.input.scale == pytest.approx((2 / 255,) * 3)
    np.testing.assert_allclose(spec.boxes.boxes(), anchors(), atol=1e-6)
    assert (spec.coding, spec.activation, spec.num_classes) == ("yxhw", "none", CLASSES)
    batch = np.random.default_rng(0).normal(size=(1, 3, SIZE, SIZE)).astype(np.float32)
    raw, logits = onnx_graph.run(tiny_detector(), {"in": batch}, ["loc", "logits"])
    scores, offsets = ImportedModel(tmp_path / "out.onnx").heads(batch)
    np.testing.assert_allclose(offsets, raw, atol=1e-5)
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-logits)), atol=1e-5)


def test_anchors_that_differ_from_those_inside_are_refused(tmp_path: Path) -> None:
    path = save(with_pipeline(), tmp_path)
    boxes = anchors()[:, [1, 0, 3, 2]]
    np.save(tmp_path / "same.npy", boxes)
    import_model(path, tmp_path / "out.onnx", ImportOptions(anchors=tmp_path / "same.npy"))
    for name, other in (("moved", boxes + 0.01), ("fewer", boxes[1:])):
        np.save(tmp_path / f"{name}.npy", other)
        with pytest.raises(UsageError, match=rf"differ from the {BOXES} default boxes inside"):
            import_model(path, tmp_path / "x.onnx", ImportOptions(anchors=tmp_path / f"{name}.npy"))
    assert not (tmp_path / "x.onnx").exists()


def test_graphs_without_a_recognizable_network_are_refused(tmp_path: Path) -> None:
    model = with_pipeline()
    for node in model.graph.node:
        if node.op_type == "Sigmoid":
            node.op_type = "Tanh"
    with pytest.raises(ModelError, match="not one softmax or sigmoid of scores"):
        import_model(save(model, tmp_path), tmp_path / "out.onnx")
    model = with_pipeline()
    del model.graph.initializer[[i.name for i in model.graph.initializer].index("p.size")]
    model.graph.input.append(helper.make_tensor_value_info("p.size", TensorProto.INT64, [4]))
    for node in model.graph.node:
        if node.op_type == "Reshape":
            node.input[1] = "p.size"
    with pytest.raises(ModelError):
        import_model(save(model, tmp_path), tmp_path / "out.onnx")


def test_an_export_of_jetson_inference_needs_no_specification(tmp_path: Path) -> None:
    model = tiny_detector("plain", activation="Softmax")
    for old, new in (("in", "input_0"), ("probabilities", "scores")):
        onnx_graph.rename(model, old, new)
    (tmp_path / "labels.txt").write_text("BACKGROUND\nairwaves\nicebreakers\n")
    result = import_model(save(model, tmp_path), tmp_path / "out.onnx")
    assert (result.family, result.spec.coding) == ("jetson", "xywh")
    assert result.spec.labels == ("background", "airwaves", "icebreakers")
    assert result.labels_origin.endswith("labels.txt")
    assert result.spec.input.mean == (127.0,) * 3
    np.testing.assert_allclose(result.spec.boxes.boxes(), anchors(), atol=1e-6)


def test_one_name_too_few_is_not_shifted(tmp_path: Path) -> None:
    model = tiny_detector("plain", activation="Softmax")
    for old, new in (("in", "input_0"), ("probabilities", "scores")):
        onnx_graph.rename(model, old, new)
    (tmp_path / "labels.txt").write_text("BACKGROUND\nairwaves\n")
    with pytest.raises(UsageError, match="has 2 names, the background included, but the model"):
        import_model(save(model, tmp_path), tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()


def test_tensorflow_heads_of_any_number_of_classes_are_recognized(
    shared_data: Path, tmp_path: Path
) -> None:
    folder = shared_data / "weights/ssd_mobilenet_v1_coco_onnx"
    model = onnx.load(str(folder / "ssd_mobilenet_v1_coco_300.onnx"))
    graph = model.graph
    graph.initializer.append(numpy_helper.from_array(np.arange(4), "columns"))
    onnx_graph.rename(model, "class_scores", "all_scores")
    graph.node.append(
        helper.make_node("Gather", ["all_scores", "columns"], ["class_scores"], axis=2)
    )
    output = next(item for item in graph.output if item.name == "all_scores")
    output.name = "class_scores"
    output.type.tensor_type.shape.dim[2].dim_value = 4
    (tmp_path / "names.txt").write_text("person\nbicycle\ncar\n")
    (tmp_path / "spec.json").write_text(
        '{"input": {"channels": "RGB", "mean": [128, 128, 128], "scale": [0.0078125, 0.0078125,'
        '0.0078125]}, "coding": "yxhw", "activation": "none"}'
    )
    path = save(model, tmp_path)
    results = [
        import_model(path, tmp_path / f"{number}.onnx", options).spec
        for number, options in enumerate(
            (
                ImportOptions(labels=tmp_path / "names.txt"),
                ImportOptions(
                    labels=tmp_path / "names.txt",
                    spec=tmp_path / "spec.json",
                    anchors=folder / "anchors_ycxchw_f32.npy",
                ),
            )
        )
    ]
    assert results[0].labels == results[1].labels == ("background", "person", "bicycle", "car")
    np.testing.assert_allclose(results[0].boxes.boxes(), results[1].boxes.boxes(), atol=1e-5)
