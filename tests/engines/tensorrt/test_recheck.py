"""Verification of cached engines."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest
from realtime_ssd_engines.tensorrt.cache import CacheEntry, EngineCache
from realtime_ssd_engines.tensorrt.recheck import recheck
from realtime_ssd_engines.tensorrt.toolchain import Target

from realtime_ssd.core.errors import ModelError
from tests.engines.tensorrt.onnx_toolchain import OnnxToolchain, build_engine
from tests.tiny import bright_cell


def only_entry(folder: Path) -> CacheEntry:
    (entry,) = EngineCache(folder).entries()
    return entry


def test_a_cached_engine_is_compared_with_its_model(model: Path, tmp_path: Path) -> None:
    build_engine(model, tmp_path / "c")
    assert recheck(only_entry(tmp_path / "c"), OnnxToolchain()).passed
    faulty = OnnxToolchain(modify=lambda heads: (heads[0] * 0 + 1, heads[1] + 3))
    assert not recheck(only_entry(tmp_path / "c"), faulty).passed


def test_engines_that_cannot_be_compared_raise_an_error_with_the_reason(
    model: Path, tmp_path: Path
) -> None:
    engine = build_engine(model, tmp_path / "c")
    newer = OnnxToolchain(target=Target("ONNX Runtime on a CPU", "0.0", "2.0"))
    with pytest.raises(
        ModelError, match=r"was built for .* TensorRT 1.0; this machine has .* TensorRT 2.0"
    ):
        recheck(only_entry(tmp_path / "c"), newer)
    model.write_bytes(model.read_bytes() + b" ")
    with pytest.raises(ModelError, match=r"its model '.*tiny.onnx' is missing or has changed"):
        recheck(only_entry(tmp_path / "c"), OnnxToolchain())
    engine.path.write_bytes(b"garbage")
    with pytest.raises(ModelError, match="cannot be used: the file is damaged"):
        recheck(only_entry(tmp_path / "c"), OnnxToolchain())


def test_int8_engines_are_not_compared_again(model: Path, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "1.png"), bright_cell((1, 1)))
    build_engine(model, tmp_path / "c", precision="int8", calibration=tmp_path)
    with pytest.raises(ModelError, match="is only compared during the build"):
        recheck(only_entry(tmp_path / "c"), OnnxToolchain())
