"""Engine builds with the real TensorRT-RTX builder, which requires no GPU."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import onnx
import pytest
from realtime_ssd_engines.tensorrt import compat
from realtime_ssd_engines.tensorrt.cache import EngineCache
from realtime_ssd_engines.tensorrt.engine_builder import EngineOptions, get_or_build_engine
from realtime_ssd_engines.tensorrt.toolchain import RtxToolchain, make_toolchain
from realtime_ssd_training.importers import import_model
from realtime_ssd_training.models import names

from benchmarks.gpu import rtx_engines
from benchmarks.result_file import RESULTS
from realtime_ssd.core.errors import ModelError, UsageError
from realtime_ssd.core.gpu import find_gpus
from realtime_ssd.core.spec import read_spec
from tests.engines.tensorrt.imported_models import IMPORTED
from tests.tiny import bright_cell

needs_rtx = pytest.mark.usefixtures("needs_rtx")
CAPABILITIES = ["7.5", "8.0", "8.6", "8.9", "12.0", "12.1"]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for cell in range(4):
        cv2.imwrite(str(folder / f"{cell}.png"), bright_cell((cell, cell)))
    return folder


def network_tensors(model: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes of inputs and outputs as TensorRT's parser infers them."""
    _, network, _, messages = compat.create_builder(1 << 30, "rtx", CAPABILITIES[:1])
    compat.parse_onnx(network, messages, str(model), "rtx")
    tensors = [network.get_input(i) for i in range(network.num_inputs)]
    tensors += [network.get_output(i) for i in range(network.num_outputs)]
    return {tensor.name: tuple(tensor.shape) for tensor in tensors}


@needs_rtx
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_engines_for_other_cards_are_built_without_verification(
    model: Path, photos: Path, tmp_path: Path, precision: str
) -> None:
    lines: list[str] = []
    options = EngineOptions(precision, batch=4, cache=tmp_path / "c", calibration=photos)
    toolchain = RtxToolchain(CAPABILITIES)
    engine = get_or_build_engine(
        model, read_spec(model), options, lines.append, toolchain=toolchain
    )
    assert len(engine.plan) > 1000
    assert engine.key.flavor == "rtx"
    assert engine.key.capability == ",".join(CAPABILITIES)
    assert "agreement" not in engine.metadata
    assert lines[-1].startswith("the engine is for another machine and is compared with ONNX")
    assert engine.reference is not None
    (entry,) = EngineCache(tmp_path / "c").entries()
    assert not entry.problem
    again = get_or_build_engine(model, read_spec(model), options, toolchain=toolchain)
    assert again.plan == engine.plan


@needs_rtx
def test_inferred_shapes_match_the_specification(model: Path) -> None:
    spec = read_spec(model)
    assert network_tensors(model) == {
        spec.input.name: (-1, 3, spec.input.height, spec.input.width),
        spec.scores_output: (-1, spec.num_boxes, spec.num_classes),
        spec.offsets_output: (-1, spec.num_boxes, 4),
    }


@needs_rtx
def test_models_with_a_fixed_batch_are_built(model: Path, tmp_path: Path) -> None:
    fixed = onnx.load(str(model))
    for value in (fixed.graph.input[0], *fixed.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(fixed, str(model))
    options = EngineOptions(cache=tmp_path / "c")
    engine = get_or_build_engine(model, read_spec(model), options, toolchain=RtxToolchain(["8.9"]))
    assert json.loads(engine.path.with_suffix(".json").read_text())["dynamic_batch"] is False


def check_builds(name: str, path: Path, folder: Path, precisions: tuple[str, ...]) -> None:
    """Build a model with a dynamic batch and a fixed one, and check what the builder reports."""
    photos = rtx_engines.write_photos(folder / "photos")
    rows = list(rtx_engines.build_all(name, path, folder, photos, precisions))
    assert len(rows) == 2 * len(precisions)
    convolutions = sum(node.op_type == "Conv" for node in onnx.load(str(path)).graph.node)
    for row in rows:
        assert (row.error, row.mismatch) == ("", ""), row
        assert row.layers > convolutions
        dtype = {"fp32": "Float", "fp16": "Half", "int8": "Int8"}[row.precision]
        assert set(row.convolutions) == {dtype}, row
        # The builder merges convolutions of the same input in FP32 and FP16.
        assert row.convolutions[dtype] <= convolutions
        if row.precision == "int8":
            assert row.convolutions[dtype] == convolutions


@needs_rtx
@pytest.mark.parametrize("name", ["street (bundled)", "tflite-float32"])
def test_engines_equal_the_specification_and_the_precision(name: str, tmp_path: Path) -> None:
    write = dict(rtx_engines.models(tmp_path, None))[name]
    check_builds(name, write(), tmp_path, ("fp16", "int8"))


@needs_rtx
@pytest.mark.nightly
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", [*names(), *IMPORTED])
def test_every_network_and_import_is_built(name: str, tmp_path: Path) -> None:
    write = dict(rtx_engines.models(tmp_path, None))[name]
    check_builds(name, write(), tmp_path, rtx_engines.PRECISIONS)


@needs_rtx
@pytest.mark.nightly
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "file",
    [
        "ssd_mobilenet_v1_coco_onnx/ssd_mobilenet_v1_coco_300.onnx",
        "ssd_face_ultralight/version-RFB-320.onnx",
    ],
)
def test_downloaded_models_are_built(shared_data: Path, tmp_path: Path, file: str) -> None:
    path = tmp_path / "imported.onnx"
    import_model(shared_data / "weights" / file, path)
    check_builds(file, path, tmp_path, rtx_engines.PRECISIONS)


def test_the_recorded_builds_are_complete_and_without_problems() -> None:
    rows = json.loads((RESULTS / "rtx-engines.json").read_text())["engines"]
    recorded = {(row["model"], row["precision"], row["batch"]) for row in rows}
    for name in (*names(), "street (bundled)", *IMPORTED):
        for precision in rtx_engines.PRECISIONS:
            assert {(name, precision, "1-32"), (name, precision, "1")} <= recorded, name
    assert not [row for row in rows if row["error"] or row["mismatch"]]
    assert all(set(row["convolutions"]) == {"Int8"} for row in rows if row["precision"] == "int8")


@needs_rtx
def test_unsupported_operators_raise_an_error_that_names_them(model: Path, tmp_path: Path) -> None:
    spec, unsupported = read_spec(model), onnx.load(str(model))
    unsupported.graph.node[0].op_type = "NoSuchOperator"
    onnx.save(unsupported, str(model))
    options = EngineOptions("fp32", cache=tmp_path / "c")
    with pytest.raises(ModelError, match=r"cannot parse '.*tiny.onnx'.*NoSuchOperator"):
        get_or_build_engine(model, spec, options, toolchain=RtxToolchain(["8.9"]))


@needs_rtx
def test_unsupported_compute_capabilities_are_rejected(model: Path, tmp_path: Path) -> None:
    options = EngineOptions(cache=tmp_path / "c")
    with pytest.raises(UsageError, match=r"`compute_capability` 9.0 is not supported .* 8.9"):
        get_or_build_engine(model, read_spec(model), options, toolchain=RtxToolchain(["9.0"]))
    assert not (tmp_path / "c").exists()
    assert RtxToolchain(["12.0", "8.9", "12.0"]).target().capability == "8.9,12.0"


@needs_rtx
@pytest.mark.skipif(bool(find_gpus()), reason="asserts the error on a machine without a GPU")
def test_engines_cannot_be_loaded_without_a_gpu(model: Path) -> None:
    with pytest.raises(ModelError, match="cannot run TensorRT-RTX engines: missing an NVIDIA"):
        RtxToolchain(["8.9"]).load(b"", read_spec(model))


@pytest.mark.skipif(bool(find_gpus()), reason="asserts the error on a machine without a GPU")
def test_compute_capabilities_are_required_without_a_gpu() -> None:
    with pytest.raises(UsageError, match="set `compute_capability` to those of the cards"):
        RtxToolchain().target()


def test_tensorrt_builds_for_the_installed_gpu_only() -> None:
    with pytest.raises(UsageError, match="`compute_capability` requires `flavor` rtx"):
        make_toolchain("tensorrt", ["8.9"])
