"""The choice between the installed flavors of TensorRT when a model is opened."""

from __future__ import annotations

from pathlib import Path

import pytest
from realtime_ssd_engines import loading
from realtime_ssd_engines.tensorrt import flavors

from realtime_ssd.backends import BackendOptions
from realtime_ssd.core.errors import ModelError
from realtime_ssd.core.gpu import Gpu
from realtime_ssd.core.spec import read_spec
from tests.engines.tensorrt.onnx_toolchain import build_engine


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Replace everything that needs a GPU; return the flavors and GPUs that were tried."""
    tried: list[tuple[str, int]] = []

    def open_onnx(device: int, *arguments: object) -> str:
        flavor = str(arguments[-1])
        tried.append((flavor, device))
        if flavor in FAILING:
            raise ModelError(f"{flavor} failed")
        return flavor

    monkeypatch.setattr(loading, "require_gpu", lambda *_: None)
    monkeypatch.setattr(loading, "require_compiler", lambda: "NVRTC")
    monkeypatch.setattr(loading, "Device", lambda number: number)
    monkeypatch.setattr(loading, "_open_onnx", open_onnx)
    return tried


FAILING: set[str] = set()


@pytest.mark.parametrize(
    ("usable", "failing", "tried"),
    [
        (("tensorrt", "rtx"), set(), ["tensorrt"]),
        (("tensorrt", "rtx"), {"tensorrt"}, ["tensorrt", "rtx"]),
        (("rtx",), set(), ["rtx"]),
        (("tensorrt", "rtx"), {"tensorrt", "rtx"}, ["tensorrt", "rtx"]),
        ((), set(), []),
    ],
)
def test_tensorrt_is_tried_before_tensorrt_rtx(
    model: Path,
    opened: list[tuple[str, int]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    usable: tuple[str, ...],
    failing: set[str],
    tried: list[str],
) -> None:
    monkeypatch.setattr(flavors, "usable_flavors", lambda _: (usable, {"rtx": "is not installed"}))
    FAILING.clear()
    FAILING.update(failing)
    options = BackendOptions(device=1)
    if set(usable) <= failing:
        message = "rtx failed" if usable else r"TensorRT engines are not available; .*pip install"
        with pytest.raises(ModelError, match=message):
            loading.open_backend(model, read_spec(model), options)
    else:
        result: object = loading.open_backend(model, read_spec(model), options)
        assert result == tried[-1]
    assert opened == [(flavor, 1) for flavor in tried]
    warned = "TensorRT cannot be used: tensorrt failed" in caplog.text
    assert warned is ("tensorrt" in failing)


@pytest.mark.usefixtures("opened")
def test_engine_files_for_other_cards_are_refused(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = build_engine(model, tmp_path / "c")
    monkeypatch.setattr(loading, "find_gpus", lambda: (Gpu(0, "RTX 4090", (8, 9), 1 << 34),))
    message = r"was built for compute capability 0.0, but GPU 'RTX 4090' has 8.9; build it again"
    with pytest.raises(ModelError, match=message):
        loading.open_engine(engine.path, BackendOptions())
