"""Graphs that may never end, or that read other files, are refused before they run."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from realtime_ssd.core.errors import ModelError
from realtime_ssd.core.graph_safety import check_graph, graph_inputs
from realtime_ssd.core.spec import read_spec
from realtime_ssd.zoo import BUNDLED
from tests.tiny import tiny_model


def add_loop(model: Any) -> None:
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["again"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("again", TensorProto.BOOL, [])],
    )
    model.graph.node.append(helper.make_node("Loop", ["", ""], [], body=body))


def add_renamed_loop(model: Any) -> None:
    add_loop(model)
    model.graph.node[-1].op_type = "Custom"


def add_scan_without_body(model: Any) -> None:
    model.graph.node.append(helper.make_node("Scan", [], ["x"], num_scan_inputs=1))


def add_function(model: Any) -> None:
    nodes = [helper.make_node("Add", ["x", "x"], ["y"])]
    opset = [helper.make_opsetid("", 17)]
    model.functions.append(helper.make_function("laughs", "f", ["x"], ["y"], nodes, opset))


def external(location: str, *, attribute: bool = False) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        if attribute:
            value = helper.make_tensor("v", TensorProto.FLOAT, [1], [0.0])
            node = helper.make_node("Constant", [], ["v"], value=value)
            model.graph.node.append(node)
            tensor = model.graph.node[-1].attribute[0].t
        else:
            tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)

    return change


def declared(model: Any) -> dict[str, list[int]]:
    return {
        item.name: [size.dim_value or 1 for size in item.type.tensor_type.shape.dim]
        for item in graph_inputs(model.graph)
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (add_loop, "contains an operator Loop, which may never end"),
        (add_renamed_loop, "contains an operator with a nested graph, which may never end"),
        (add_scan_without_body, "contains an operator Scan, which may never end"),
        (add_function, "contains functions, which SSDs do not need"),
        (external("/etc/passwd"), "reads weights from outside its folder"),
        (external("../weights"), "reads weights from outside its folder"),
        (external("a/../../weights"), "reads weights from outside its folder"),
        (external("link"), "reads weights from outside its folder"),
        (external("loop"), "reads weights from outside its folder"),
        (external("a\0b"), "reads weights from outside its folder"),
        (external(""), "reads weights from outside its folder"),
        (external("/etc/passwd", attribute=True), "reads weights from outside its folder"),
    ],
)
def test_hostile_graphs(
    tiny: Path, tmp_path: Path, change: Callable[[Any], None], message: str
) -> None:
    model = onnx.load(str(tiny))
    change(model)
    path = tmp_path / "model" / "m.onnx"
    path.parent.mkdir()
    (tmp_path / "weights").touch()
    (path.parent / "link").symlink_to(tmp_path / "weights")
    (path.parent / "loop").symlink_to(path.parent / "loop")
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=message):
        read_spec(path)
    importer = pytest.importorskip("realtime_ssd_training.importers.onnx_graph")
    with pytest.raises(ModelError, match=message):
        importer.load(path)


def test_weights_beside_the_model_are_read(tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save_model(
        onnx.load(str(tiny)), str(path), save_as_external_data=True, location="m.data",
        size_threshold=0,
    )  # fmt: skip
    assert (tmp_path / "m.data").is_file()
    assert read_spec(path) == read_spec(tiny)
    importer = pytest.importorskip("realtime_ssd_training.importers.onnx_graph")
    loaded = importer.load(path).graph.initializer
    assert [t.raw_data for t in loaded] == [
        t.raw_data for t in onnx.load(str(tiny)).graph.initializer
    ]


def test_the_bundled_model_passes_quickly() -> None:
    model = onnx.load(str(BUNDLED))
    check_graph(model, BUNDLED, declared(model))  # loads ONNX's schemas
    start = time.process_time()
    check_graph(model, BUNDLED, declared(model))
    assert time.process_time() - start < 0.3


def test_published_models_pass(shared_data: Path) -> None:
    files = sorted(shared_data.glob("weights/**/*.onnx"))
    assert len(files) >= 4
    for path in files:
        model = onnx.load(str(path), load_external_data=False)
        check_graph(model, path, declared(model))


def test_a_linked_model_is_judged_by_the_folder_of_the_link(tiny: Path, tmp_path: Path) -> None:
    """The weights are looked up next to the link, not next to the file it names."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    blobs.mkdir()
    snapshot.mkdir()
    model = onnx.load(str(tiny))
    external("weights")(model)
    (blobs / "m.onnx").write_bytes(model.SerializeToString())
    (blobs / "weights").touch()
    (snapshot / "m.onnx").symlink_to(blobs / "m.onnx")
    (snapshot / "weights").symlink_to("/etc/hostname")
    with pytest.raises(ModelError, match="reads weights from outside its folder"):
        read_spec(snapshot / "m.onnx")


@pytest.mark.parametrize("dims", [[2**62] * 300, [1] * 200_000, [2**41, 0]])
def test_impossible_shapes_are_refused_before_they_are_multiplied(
    tmp_path: Path, dims: list[int]
) -> None:
    model = onnx.load(str(tiny_model(tmp_path / "tiny.onnx")))
    model.graph.initializer.add(name="huge", data_type=1, dims=dims)
    path = tmp_path / "huge.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="constant 'huge' of an impossible shape"):
        read_spec(path)
