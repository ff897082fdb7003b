"""SSDs that are ONNX already: face detectors with golden boxes, and graphs built here."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from realtime_ssd_training.importers import ImportOptions, graph, import_model
from realtime_ssd_training.importers.decoding import find_decoding
from realtime_ssd_training.importers.ultralight import face_boxes

from realtime_ssd.core.errors import ModelError, UsageError
from tests.training.importers.conftest import Ready, read_photo

FACES = "weights/ssd_face_ultralight"
SIZE, BOXES, CLASSES = 16, 32, 3  # 4 × 4 cells of two boxes


def weights(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.normal(scale=0.2, size=shape).astype(np.float32)


def anchors() -> np.ndarray:
    """Two boxes in each of 4 × 4 cells, row by row."""
    y, x = np.divmod(np.arange(16), 4)
    centers = np.stack([x + 0.5, y + 0.5], axis=1).repeat(2, axis=0) / 4
    sizes = np.tile([[0.2, 0.3], [0.5, 0.4]], (16, 1))
    return np.concatenate([centers, sizes], axis=1).astype(np.float32)


def head(nodes: list, constants: dict, rng: np.random.Generator, name: str, columns: int) -> None:
    constants[f"{name}.w"] = weights(rng, 2 * columns, 3, 4, 4)
    constants[f"{name}.shape"] = np.array([1, BOXES, columns])
    nodes += [
        helper.make_node("Conv", ["in", f"{name}.w"], [f"{name}.c"], strides=[4, 4]),
        helper.make_node("Transpose", [f"{name}.c"], [f"{name}.t"], perm=[0, 2, 3, 1]),
        helper.make_node("Reshape", [f"{name}.t", f"{name}.shape"], [name]),
    ]


def decoding_nodes(constants: dict, *, pixels: bool, tensorflow: bool) -> list:
    """Write the SSD decoding the way exporters do: centre form, then corners."""
    boxes = anchors()[:, [1, 0, 3, 2]] if tensorflow else anchors()
    unit = float(SIZE) if pixels else 1.0
    constants |= {
        "first": np.array([0]),
        "middle": np.array([2]),
        "end": np.array([4]),
        "axis": np.array([2]),
        "v0": np.float32(0.1) * boxes[:, 2:],
        "v1": np.float32(0.2),
        "c": boxes[:, :2],
        "s": boxes[:, 2:],
        "half": np.float32(0.5),
        "unit": np.float32(unit),
    }
    node = helper.make_node
    return [
        node("Slice", ["loc", "first", "middle", "axis"], ["xy"]),
        node("Slice", ["loc", "middle", "end", "axis"], ["wh"]),
        node("Mul", ["xy", "v0"], ["xy.m"]), node("Add", ["xy.m", "c"], ["xy.c"]),
        node("Mul", ["wh", "v1"], ["wh.m"]), node("Exp", ["wh.m"], ["wh.e"]),
        node("Mul", ["wh.e", "s"], ["wh.s"]), node("Mul", ["wh.s", "half"], ["wh.h"]),
        node("Sub", ["xy.c", "wh.h"], ["low"]), node("Add", ["xy.c", "wh.h"], ["high"]),
        node("Concat", ["low", "high"], ["corners"], axis=2),
        node("Mul", ["corners", "unit"], ["boxes"]),
    ]  # fmt: skip


def tiny(decoded: str = "", *, softmax: bool = False) -> onnx.ModelProto:
    """Build a detector of one layer; `decoded` is empty or of "pixels", "tensorflow", "plain"."""
    rng, nodes, constants = np.random.default_rng(3), [], {}
    head(nodes, constants, rng, "logits", CLASSES)
    head(nodes, constants, rng, "loc", 4)
    if softmax:
        nodes.append(helper.make_node("Softmax", ["logits"], ["probabilities"], axis=2))
    if decoded:
        nodes += decoding_nodes(
            constants, pixels=decoded == "pixels", tensorflow=decoded == "tensorflow"
        )
    names = ["boxes" if decoded else "loc", "probabilities" if softmax else "logits"]
    made = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("in", TensorProto.FLOAT, [1, 3, SIZE, SIZE])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, BOXES, columns])
            for name, columns in zip(names, (4, CLASSES), strict=True)
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture
def described(tmp_path: Path) -> Path:
    path = tmp_path / "spec.json"
    given = {"channels": "BGR", "mean": [104, 117, 123], "scale": [1, 1, 1]}
    path.write_text(json.dumps({"name": "tiny", "input": given}))
    return path


def imported(tmp_path: Path, model: onnx.ModelProto, **options: Path) -> Ready:
    onnx.save(model, str(tmp_path / "in.onnx"))
    done = import_model(tmp_path / "in.onnx", tmp_path / "out.onnx", ImportOptions(**options))
    assert done.dynamic_batch
    return Ready(tmp_path / "out.onnx")


@pytest.mark.parametrize("name", ["version-slim-320", "version-RFB-320"])
def test_faces_equal_the_golden_ones(shared_data: Path, tmp_path: Path, name: str) -> None:
    done = import_model(shared_data / FACES / f"{name}.onnx", tmp_path / "face.onnx")
    assert (done.family, done.dynamic_batch, done.spec.boxes.explicit) == ("ultralight", True, "")
    ready = Ready(tmp_path / "face.onnx")
    golden = json.loads((shared_data / "golden/ssd_face.json").read_text())["images"]
    for photo, entry in golden.items():
        image = read_photo(shared_data / photo)
        wanted = entry["detections"][f"{name}.onnx"]
        found = ready(image)
        assert len(found) == len(wanted) > 0, photo
        size = np.tile([image.shape[1], image.shape[0]], 2)
        for mine, theirs in zip(found, wanted, strict=True):
            assert mine.score == pytest.approx(theirs["score"], abs=1e-4)
            clipped = np.clip(theirs["box_norm_xyxy"], 0, 1) * size
            assert mine.box == pytest.approx(clipped.tolist(), abs=0.05)


def test_raw_and_decoded_exports_become_the_same_model(shared_data: Path, tmp_path: Path) -> None:
    files = ("version-RFB-320", "version-RFB-320_without_postprocessing")
    ready = []
    for number, name in enumerate(files):
        output = tmp_path / f"{number}.onnx"
        import_model(shared_data / FACES / f"{name}.onnx", output)
        ready.append(Ready(output))
    assert ready[0].spec == ready[1].spec
    batch = np.random.default_rng(0).normal(size=(2, 3, 240, 320)).astype(np.float32)
    for mine, theirs in zip(ready[0].heads(batch), ready[1].heads(batch), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-5)


def test_face_boxes_equal_those_inside_the_graph(shared_data: Path) -> None:
    model = graph.load(shared_data / FACES / "version-slim-320.onnx")
    decoding = find_decoding(model, "boxes", 4420, 320, 240)
    assert decoding is not None
    assert decoding.variances == pytest.approx((0.1, 0.1, 0.2, 0.2))
    np.testing.assert_allclose(face_boxes(320, 240).boxes(), decoding.default_boxes, atol=1e-6)


@pytest.mark.parametrize("kind", ["plain", "pixels", "tensorflow"])
def test_decoding_is_taken_out_of_the_graph(tmp_path: Path, described: Path, kind: str) -> None:
    ready = imported(tmp_path, tiny(kind, softmax=True), spec=described)
    assert ready.spec.activation == "none"
    assert ready.spec.coding == ("yxhw" if kind == "tensorflow" else "xywh")
    np.testing.assert_allclose(ready.spec.boxes.boxes(), anchors(), atol=1e-6)
    assert ready.spec.variances == pytest.approx((0.1, 0.1, 0.2, 0.2))
    batch = np.random.default_rng(1).normal(size=(1, 3, SIZE, SIZE)).astype(np.float32)
    (raw,) = graph.run(tiny(), {"in": batch}, ["loc"])
    np.testing.assert_allclose(ready.heads(batch)[1], raw, atol=1e-6)


def test_raw_heads_take_anchors_and_labels_from_files(tmp_path: Path, described: Path) -> None:
    np.save(tmp_path / "anchors.npy", anchors())
    (tmp_path / "labels.txt").write_text("cat\ndog\n")
    ready = imported(
        tmp_path,
        tiny(),
        spec=described,
        anchors=tmp_path / "anchors.npy",
        labels=tmp_path / "labels.txt",
    )
    assert ready.spec.labels == ("background", "cat", "dog")
    assert (ready.spec.activation, ready.spec.coding) == ("softmax", "xywh")
    np.testing.assert_array_equal(ready.spec.boxes.boxes(), anchors())


def test_raw_offsets_without_anchors_are_refused(tmp_path: Path, described: Path) -> None:
    with pytest.raises(ModelError, match="--anchors"):
        imported(tmp_path, tiny(), spec=described)
    assert not (tmp_path / "out.onnx").exists()


def test_unknown_heads_say_what_was_found(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"loc 1×32×4, logits 1×32×3.*--spec"):
        imported(tmp_path, tiny())


def test_no_heads_say_what_was_found(tmp_path: Path) -> None:
    model = tiny()
    del model.graph.output[0]
    with pytest.raises(ModelError, match=r"gives logits 1×32×3; an SSD gives"):
        imported(tmp_path, model)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"anchors": np.zeros((5, 4))}, "says"),
        ({"anchors": np.zeros((5, 3))}, "P × 4"),
        ({"labels": "only one"}, "3 score columns"),
        ({"spec": "{}"}, "channels"),
        ({"spec": "["}, "cannot be read"),
        ({"family": "yolo"}, "choose from"),
    ],
)
def test_files_that_do_not_fit_are_refused(
    tmp_path: Path, described: Path, options: dict, sentence: str
) -> None:
    given: dict = {"spec": described, "anchors": tmp_path / "good.npy"}
    np.save(given["anchors"], anchors())
    for key, value in options.items():
        given[key] = tmp_path / f"{key}.npy"
        if isinstance(value, np.ndarray):
            np.save(given[key], value)
        elif key == "family":
            given[key] = value
        else:
            given[key].write_text(value)
    with pytest.raises((UsageError, ModelError), match=sentence):
        imported(tmp_path, tiny(), **given)
    assert not (tmp_path / "out.onnx").exists()


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(tiny().SerializeToString()[:300])
    with pytest.raises(ModelError, match="damaged"):
        import_model(broken, tmp_path / "out.onnx")
    with pytest.raises(UsageError, match="does not exist"):
        import_model(tmp_path / "nothing.onnx", tmp_path / "out.onnx")


def test_a_batch_that_the_graph_fixes_stays_one(tmp_path: Path, described: Path) -> None:
    model = tiny("plain")
    wide = numpy_helper.from_array(np.zeros((1, BOXES, 4), np.float32), "zeros")
    model.graph.initializer.append(wide)
    model.graph.node.insert(6, helper.make_node("Concat", ["loc", "zeros"], ["two"], axis=0))
    model.graph.node.insert(7, helper.make_node("ReduceSum", ["two", "batch"], ["one"], keepdims=1))
    model.graph.initializer.append(numpy_helper.from_array(np.array([0]), "batch"))
    for node in model.graph.node[8:]:
        node.input[:] = ["one" if name == "loc" else name for name in node.input]
    onnx.save(model, str(tmp_path / "in.onnx"))
    options = ImportOptions(spec=described)
    done = import_model(tmp_path / "in.onnx", tmp_path / "out.onnx", options)
    assert not done.dynamic_batch
    assert Ready(tmp_path / "out.onnx").session.get_inputs()[0].shape[0] == 1
