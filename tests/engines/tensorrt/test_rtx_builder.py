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
from realtime_ssd_training.export import to_onnx
from realtime_ssd_training.models import create, names

from realtime_ssd.core.errors import ModelError, UsageError
from realtime_ssd.core.gpu import find_gpus
from realtime_ssd.core.spec import read_spec
from tests.tiny import bright_cell

needs_rtx = pytest.mark.usefixtures("needs_rtx")
CAPABILITIES = ["8.6", "8.9", "12.0"]


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
    assert engine.key.capability == "8.6,8.9,12.0"
    assert "agreement" not in engine.metadata
    assert "not compared with ONNX Runtime: the engine is for another machine" in lines
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


@needs_rtx
@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_the_coco_model_is_built(
    coco_model: Path, shared_data: Path, tmp_path: Path, precision: str
) -> None:
    options = EngineOptions(
        precision,
        batch=32,
        cache=tmp_path,
        calibration=shared_data / "photos" / "darknet",
    )
    spec = read_spec(coco_model)
    engine = get_or_build_engine(coco_model, spec, options, toolchain=RtxToolchain(["8.9"]))
    assert len(engine.plan) > 1 << 20
    assert network_tensors(coco_model)[spec.scores_output] == (-1, 1917, 91)


@needs_rtx
@pytest.mark.slow
@pytest.mark.parametrize("name", names())
def test_all_registered_networks_are_built(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.onnx"
    onnx.save(to_onnx(create(name, ("background", "a", "b"))), str(path))
    spec = read_spec(path)
    assert network_tensors(path) == {
        spec.input.name: (-1, 3, spec.input.height, spec.input.width),
        spec.scores_output: (-1, spec.num_boxes, 3),
        spec.offsets_output: (-1, spec.num_boxes, 4),
    }
    for precision in ("fp32", "fp16"):
        options = EngineOptions(precision, batch=32, cache=tmp_path / "c")
        engine = get_or_build_engine(path, spec, options, toolchain=RtxToolchain(["8.9"]))
        assert len(engine.plan) > 1 << 20


@needs_rtx
def test_unsupported_operators_raise_an_error_that_names_them(model: Path, tmp_path: Path) -> None:
    unsupported = onnx.load(str(model))
    unsupported.graph.node[0].op_type = "NoSuchOperator"
    onnx.save(unsupported, str(model))
    options = EngineOptions("fp32", cache=tmp_path / "c")
    with pytest.raises(ModelError, match=r"cannot parse '.*tiny.onnx'.*NoSuchOperator"):
        get_or_build_engine(model, read_spec(model), options, toolchain=RtxToolchain(["8.9"]))


@needs_rtx
def test_unsupported_compute_capabilities_are_rejected(model: Path, tmp_path: Path) -> None:
    options = EngineOptions(cache=tmp_path / "c")
    with pytest.raises(UsageError, match=r"`compute_capability` 9.0 is not supported .* 8.9"):
        get_or_build_engine(model, read_spec(model), options, toolchain=RtxToolchain(["9.0"]))


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
