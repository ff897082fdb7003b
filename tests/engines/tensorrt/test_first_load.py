"""Engines from another machine are compared with ONNX Runtime when they are first loaded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from realtime_ssd_engines.onnx.verify import Heads
from realtime_ssd_engines.tensorrt.cache import EngineCache, read_entry, reference_file
from realtime_ssd_engines.tensorrt.engine_builder import EngineOptions, get_or_build_engine
from realtime_ssd_engines.tensorrt.first_load import compare_once

from realtime_ssd.core.errors import ModelError
from realtime_ssd.core.spec import read_spec
from tests.engines.tensorrt.onnx_toolchain import FRAMES, OnnxToolchain
from tests.tiny import bright_cell


def shifted(heads: Heads) -> Heads:
    return heads[0], heads[1] + np.float32(0.5)


@pytest.fixture(params=["fp32", "fp16", "int8"])
def shipped(request: pytest.FixtureRequest, model: Path, tmp_path: Path) -> Path:
    """Return an engine built without a GPU, copied to another folder without its model."""
    photos = tmp_path / "photos"
    photos.mkdir()
    cv2.imwrite(str(photos / "1.png"), bright_cell((1, 1)))
    options = EngineOptions(request.param, cache=tmp_path / "c", calibration=photos)
    engine = get_or_build_engine(model, read_spec(model), options, toolchain=OnnxToolchain(gpu=""))
    assert "agreement" not in engine.metadata
    assert engine.reference is not None
    path = tmp_path / "other machine" / "m.engine"
    EngineCache(path.parent).write(
        engine.key, engine.plan, engine.metadata, path, engine.reference.read_bytes()
    )
    model.unlink()
    return path


def load(path: Path, toolchain: OnnxToolchain) -> list[str]:
    """Compare the engine if necessary and return the progress."""
    lines: list[str] = []
    spec = read_spec(reference_file(path)) if reference_file(path).exists() else SPEC[0]
    SPEC[:] = [spec]
    compare_once(read_entry(path), spec, toolchain, lines.append, frames=FRAMES)
    return lines


SPEC: list[Any] = []


def test_an_engine_is_compared_once_on_each_gpu(shipped: Path) -> None:
    toolchain = OnnxToolchain(gpu="RTX 4090")
    assert load(shipped, toolchain) == [
        "comparing engine 'm.engine' with ONNX Runtime, once on this GPU"
    ]
    entry = read_entry(shipped)
    assert entry.problem == ""
    assert entry.metadata["agreement"]["passed"]
    assert entry.metadata["compared_on"] == "RTX 4090"
    assert load(shipped, toolchain) == []
    assert toolchain.loads == 1
    other = OnnxToolchain(gpu="RTX 5090")
    assert len(load(shipped, other)) == 1
    reference_file(shipped).unlink()
    assert load(shipped, OnnxToolchain(gpu="RTX 3060")) == []  # nothing to repeat it with


def test_an_engine_that_disagrees_is_refused_now_and_later(shipped: Path) -> None:
    faulty = OnnxToolchain(gpu="RTX 4090", modify=shifted)
    for _ in range(2):
        with pytest.raises(ModelError, match=r"disagrees with its ONNX file on GPU 'RTX 4090' and"):
            load(shipped, faulty)
    assert faulty.loads == 1
    assert not read_entry(shipped).metadata["agreement"]["passed"]
    assert len(load(shipped, OnnxToolchain(gpu="RTX 5090"))) == 1


def delete_reference(path: Path) -> None:
    reference_file(path).unlink()


def damage_reference(path: Path) -> None:
    reference_file(path).write_bytes(reference_file(path).read_bytes() + b" ")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (delete_reference, r"copy 'm.reference.onnx' from that machine to the same folder"),
        (damage_reference, r"m.reference.onnx' is damaged or belongs to another engine"),
    ],
)
def test_an_engine_without_its_reference_is_refused(
    shipped: Path, damage: Callable[[Path], None], message: str
) -> None:
    SPEC[:] = [read_spec(reference_file(shipped))]
    spec = SPEC[0]
    damage(shipped)
    toolchain = OnnxToolchain(gpu="RTX 4090")
    with pytest.raises(ModelError, match=message):
        compare_once(read_entry(shipped), spec, toolchain, print, frames=FRAMES)
    assert toolchain.loads == 0


@pytest.mark.parametrize("agreement", ["yes", {"passed": "yes"}, [], {"passed": None}])
def test_a_malformed_record_does_not_pass(shipped: Path, agreement: object) -> None:
    file = shipped.with_suffix(".json")
    contents = json.loads(file.read_text())
    file.write_text(json.dumps({**contents, "agreement": agreement}))
    if read_entry(shipped).problem:
        return
    toolchain = OnnxToolchain(gpu="RTX 4090", modify=shifted)
    with pytest.raises(ModelError, match="disagrees with its ONNX file"):
        load(shipped, toolchain)


def test_a_read_only_folder_repeats_the_comparison(
    shipped: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("realtime_ssd_engines.tensorrt.first_load.replace_file", fail)
    toolchain = OnnxToolchain(gpu="RTX 4090")
    assert len(load(shipped, toolchain)) == len(load(shipped, toolchain)) == 1
    assert "cannot be written (Read-only file system), so the comparison is repeated" in caplog.text


def test_cached_engines_built_without_a_gpu_are_compared_with_their_model(
    model: Path, tmp_path: Path
) -> None:
    options = EngineOptions(cache=tmp_path / "c")
    lines: list[str] = []
    spec = read_spec(model)
    get_or_build_engine(model, spec, options, lines.append, toolchain=OnnxToolchain(gpu=""))
    assert "is compared with ONNX Runtime when it is first loaded there" in lines[-1]
    here = OnnxToolchain(gpu="a GPU")
    for loads in (1, 1):
        get_or_build_engine(model, spec, options, lines.append, FRAMES, here)
        assert here.loads == loads
    assert not here.requests
    faulty = OnnxToolchain(gpu="another GPU", modify=shifted)
    with pytest.raises(ModelError, match="disagrees with its ONNX file on GPU 'another GPU'"):
        get_or_build_engine(model, spec, options, lines.append, FRAMES, faulty)
    rebuilt = EngineOptions(cache=tmp_path / "c", rebuild=True)
    get_or_build_engine(model, spec, rebuilt, lines.append, FRAMES, OnnxToolchain(gpu="a GPU"))
    (entry,) = EngineCache(tmp_path / "c").entries()
    assert entry.metadata["compared_on"] == "a GPU"
