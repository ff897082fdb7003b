"""A second look at kept engines."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest
from realtime_ssd_engines.tensorrt.cache import EngineCache, Entry
from realtime_ssd_engines.tensorrt.recheck import recheck
from realtime_ssd_engines.tensorrt.toolchain import Machine

from realtime_ssd.core.errors import ModelError
from tests.engines.runtime import OnnxToolchain, get
from tests.tiny import bright_cell


def entry(folder: Path) -> Entry:
    (found,) = EngineCache(folder).entries()
    return found


def test_a_kept_engine_still_agrees(model: Path, tmp_path: Path) -> None:
    get(model, tmp_path / "c")
    assert recheck(entry(tmp_path / "c"), OnnxToolchain()).passed
    wrong = OnnxToolchain(change=lambda heads: (heads[0] * 0 + 1, heads[1] + 3))
    assert not recheck(entry(tmp_path / "c"), wrong).passed


def test_why_an_engine_cannot_be_compared(model: Path, tmp_path: Path) -> None:
    done = get(model, tmp_path / "c")
    newer = OnnxToolchain(machine=Machine("ONNX Runtime on a CPU", "0.0", "2.0", "none"))
    with pytest.raises(ModelError, match=r"is for .* TensorRT 1.0 .* here are .* 2.0"):
        recheck(entry(tmp_path / "c"), newer)
    model.write_bytes(model.read_bytes() + b" ")
    with pytest.raises(ModelError, match=r"its model '.*tiny.onnx' is gone or has changed"):
        recheck(entry(tmp_path / "c"), OnnxToolchain())
    done.path.write_bytes(b"rubbish")
    with pytest.raises(ModelError, match="cannot be used: the file is damaged"):
        recheck(entry(tmp_path / "c"), OnnxToolchain())


def test_int8_is_compared_when_built(model: Path, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "1.png"), bright_cell((1, 1)))
    get(model, tmp_path / "c", precision="int8", calibration=tmp_path)
    with pytest.raises(ModelError, match="is compared while it is built"):
        recheck(entry(tmp_path / "c"), OnnxToolchain())
