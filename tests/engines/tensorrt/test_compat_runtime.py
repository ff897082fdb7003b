"""Errors while engines are loaded."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from realtime_ssd_engines.tensorrt import compat_runtime
from realtime_ssd_engines.tensorrt.compat_runtime import IncompatibleEngineError, load_engine

from realtime_ssd.core.errors import ModelError


@pytest.mark.parametrize(
    ("reason", "error", "message"),
    [
        (
            "CUDA error 2: out of memory",
            ModelError,
            r"not enough memory for the engine of 3 MiB, 512 MiB of the GPU are free \(CUDA error",
        ),
        ("version tag mismatch", IncompatibleEngineError, r"cannot load the engine \(version tag"),
    ],
)
def test_an_engine_that_cannot_be_loaded_raises_an_error_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, reason: str, error: type[ModelError], message: str
) -> None:
    runtime = SimpleNamespace(deserialize_cuda_engine=lambda plan: None)
    log = SimpleNamespace(last_error=lambda: reason)
    monkeypatch.setattr(compat_runtime, "_runtime", lambda flavor: runtime)
    monkeypatch.setattr(compat_runtime, "message_log", lambda flavor: log)
    monkeypatch.setattr(compat_runtime, "version", lambda flavor: "10.0")
    with pytest.raises(error, match=message) as caught:
        load_engine(bytes(3 << 20), free=512 << 20)
    assert type(caught.value) is error
