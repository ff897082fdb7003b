"""Graphs that would need much memory or time are refused before they run."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from realtime_ssd import Detector
from realtime_ssd.core.errors import ModelError
from realtime_ssd.core.graph_shapes import infer_shapes
from realtime_ssd.core.spec import read_spec
from tests.tiny import bright_cell

Change = Callable[[Any], None]
HUGE = 2**16


def nodes(*added: Any, **constants: Any) -> Change:
    """Return a change that adds nodes and constants (integers or arrays) to a model."""

    def change(model: Any) -> None:
        model.graph.node.extend(added)
        for name, value in constants.items():
            array = np.asarray(value, getattr(value, "dtype", np.int64))
            model.graph.initializer.append(numpy_helper.from_array(array, name))

    return change


def node(operator: str, inputs: str, outputs: str = "x", **attributes: Any) -> Any:
    return helper.make_node(operator, inputs.split(), outputs.split(), **attributes)


def missing_values(model: Any) -> None:
    tensor = TensorProto(name="c", data_type=TensorProto.FLOAT, dims=[2**40])
    model.graph.initializer.append(tensor)


def huge_external(model: Any) -> None:
    tensor = TensorProto(name="c", data_type=TensorProto.FLOAT, dims=[2**40])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights")
    model.graph.initializer.append(tensor)


def sparse(model: Any) -> None:
    values = helper.make_tensor("v", TensorProto.FLOAT, [1], [1.0])
    indices = helper.make_tensor("i", TensorProto.INT64, [1], [5])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [2**40]))


def many_nodes(model: Any) -> None:
    model.graph.node.extend(node("Relu", "image", f"r{k}") for k in range(20_001))


def many_tensors(model: Any) -> None:
    """Add 40 large tensors that are all used at the end."""
    shape = nodes(shape=[16_000_000])
    shape(model)
    names = [f"t{k}" for k in range(40)]
    model.graph.node.extend(node("ConstantOfShape", "shape", name) for name in names)
    model.graph.node.append(node("Sum", " ".join(names)))


def slow_products(model: Any) -> None:
    nodes(shape=[4096, 4096])(model)
    model.graph.node.append(node("ConstantOfShape", "shape", "m0"))
    model.graph.node.extend(node("MatMul", f"m{k} m0", f"m{k + 1}") for k in range(100))


def old_constant(model: Any) -> None:
    """Add a shape that is computed from the attribute of a constant."""
    value = helper.make_tensor("v", TensorProto.INT64, [2], [HUGE, HUGE])
    model.graph.node.append(node("Constant", "", "c", value=value))
    model.graph.node.append(node("ConstantOfShape", "c"))


ROW = [node("ConstantOfShape", "n", "row"), node("ConstantOfShape", "m", "column")]
SHAPES = {"n": [1, HUGE], "m": [HUGE, 1]}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (nodes(node("ConstantOfShape", "s"), s=[2**30]), "of 1073741824 elements, more than the"),
        (nodes(node("ConstantOfShape", "s"), s=[2**31, 2**31]), "of 4611686018427387904 elements"),
        (nodes(node("ConstantOfShape", "s"), s=[2**62, 4]), "of 18446744073709551616 elements"),
        (old_constant, "of 4294967296 elements"),
        (nodes(node("Mul", "s s", "p"), node("ConstantOfShape", "p"), s=[HUGE]), "of 4294967296"),
        (nodes(node("Div", "s d", "p"), node("ConstantOfShape", "p"), s=[2**40], d=[8]), "of 1374"),
        (nodes(node("Abs", "s", "p"), node("ConstantOfShape", "p"), s=[2**40]), "not known before"),
        (nodes(node("TopK", "s k", "p q"), node("ConstantOfShape", "p"), s=[9], k=[1]), "not know"),
        (nodes(node("Expand", "image s"), s=[10**6, 1, 1, 1]), "elements, more than the"),
        (nodes(node("Tile", "image s"), s=[1, 10**6, 1, 1]), "elements, more than the"),
        (nodes(node("Range", "c0 c1 c2"), c0=0, c1=10**12, c2=1), "of 1000000000000 elements"),
        (nodes(node("Pad", "image p"), p=[0, 0, 0, 0, 0, 10**6, 0, 0]), "elements, more than the"),
        (nodes(node("Resize", "image r s"), r=np.array([], np.float32),
               s=np.array([1, 1, 999, 999], np.float32)), "elements, more than the"),
        (nodes(*ROW, node("Add", "row column"), **SHAPES), "of 4294967296 elements"),
        (nodes(*ROW, node("MatMul", "column row"), **SHAPES), "of 4294967296 elements"),
        (nodes(*ROW, node("Reshape", "row r", "u"), node("Abs", "k", "r"), node("MatMul", "u u"),
               k=[HUGE, 1], **SHAPES), "is not known before it runs"),
        (nodes(node("OneHot", "i d v"), i=[0] * 50, d=10**9, v=[0, 1]), "of 50000000000 elements"),
        (nodes(node("Shape", "image", "h"), node("Gather", "s h"), s=[1, 2]), ""),
        (nodes(node("Div", "k n", "x"), k=-(2**63), n=-1), "divides integers by a number that may"),
        (nodes(node("Sub", "k n", "d"), node("Mod", "k d"), k=1, n=1), "divides integers by a num"),
        (many_nodes, "operators, more than 20000"),
        (many_tensors, "needs too much memory for an SSD of its input size"),
        (slow_products, "needs too many operations for an SSD of its input size"),
        (missing_values, "values of its constant 'c' are missing"),
        (huge_external, "has a constant 'c' of 1099511627776 elements"),
        (sparse, "contains sparse tensors, which SSDs do not need"),
        (nodes(node("Relu", "image", "scores")), "two of its tensors have the same name"),
        (nodes(node("RandomNormal", "", shape=[2**31])), "an operator 'RandomNormal', which SSDs"),
        (nodes(node("StringSplit", "image")), "an operator 'StringSplit', which SSDs do not need"),
        (nodes(node("Relu", "image", domain="evil")), "an operator 'evil.Relu', which SSDs do not"),
        (nodes(node("Einsum", "image image", equation="abcd,efgh->a")), "an operator 'Einsum'"),
    ],
)  # fmt: skip
def test_hostile_sizes(tiny: Path, tmp_path: Path, change: Change, problem: str) -> None:
    model = onnx.load(str(tiny))
    change(model)
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    (tmp_path / "weights").touch()
    start = time.process_time()
    if not problem:
        read_spec(path)
        return
    with pytest.raises(ModelError) as caught:
        read_spec(path)
    assert problem in str(caught.value)
    assert "set `trust_model` if you trust its author" in str(caught.value)
    assert time.process_time() - start < 2
    assert read_spec(path, trust_model=True) == read_spec(tiny)


def test_a_trusted_model_runs(tiny: Path, tmp_path: Path) -> None:
    model = onnx.load(str(tiny))
    model.graph.node[0].output[0] = "map"
    model.graph.node.append(node("RandomNormalLike", "map", "scores_map", scale=0.001))
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="set `trust_model`"):
        Detector(path)
    with Detector(path, trust_model=True) as detector:
        detector(bright_cell((1, 1)))


def test_shapes_equal_those_of_a_run(shared_data: Path) -> None:
    """Every shape that is inferred without weights equals the one that ONNX Runtime computes."""
    import onnxruntime

    for path in sorted(shared_data.glob("weights/ssd_face_ultralight/*.onnx")):
        model = onnx.load(str(path))
        names = [name for item in model.graph.node for name in item.output]
        del model.graph.output[:], model.graph.value_info[:]
        inferred = infer_shapes(model, {"input": [1, 3, 240, 320]})
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
        session = onnxruntime.InferenceSession(model.SerializeToString())
        values = session.run(names, {"input": np.zeros((1, 3, 240, 320), np.float32)})
        actual = {name: value.shape for name, value in zip(names, values, strict=True)}
        assert {name: inferred.get(name) for name in names if name in inferred} == {
            name: shape for name, shape in actual.items() if name in inferred
        }
        assert len(inferred) > len(names) * 0.5
