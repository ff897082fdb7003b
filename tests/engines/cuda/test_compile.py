"""Kernels become machine code on this machine, and are kept."""

from __future__ import annotations

from pathlib import Path

import pytest
from realtime_ssd_engines.cuda import compile as compiling
from realtime_ssd_engines.cuda.compile import compile_kernel, compiler_name, nvcc_path
from realtime_ssd_engines.cuda.driver import nvrtc_compile, nvrtc_version
from realtime_ssd_engines.cuda.kernel_params import preprocess_settings

from realtime_ssd.core.errors import ModelError
from realtime_ssd.core.spec import InputSpec

needs_nvrtc = pytest.mark.skipif(nvrtc_version() is None, reason="NVRTC is not installed")
SETTINGS = preprocess_settings(InputSpec(300, 300), "fp16")


@needs_nvrtc
def test_nvrtc_makes_machine_code_that_is_kept(tmp_path: Path) -> None:
    made = compile_kernel("preprocess", SETTINGS, "sm_90", tmp_path)
    assert made.startswith(b"\x7fELF")
    (kept,) = tmp_path.iterdir()
    assert kept.name.startswith("preprocess-sm_90-")
    kept.write_bytes(b"from the cache")
    assert compile_kernel("preprocess", SETTINGS, "sm_90", tmp_path) == b"from the cache"
    other = {**SETTINGS, "SWAP_RB": "0"}
    assert compile_kernel("preprocess", other, "sm_90", tmp_path).startswith(b"\x7fELF")
    assert len(list(tmp_path.iterdir())) == 2


@needs_nvrtc
def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    made = compile_kernel("preprocess", SETTINGS, "sm_75", tmp_path / "file" / "kernels")
    assert made.startswith(b"\x7fELF")


@needs_nvrtc
def test_what_nvrtc_refuses_is_told_with_its_log() -> None:
    with pytest.raises(ModelError, match=r"NVRTC refused bad.cu: .*error"):
        nvrtc_compile("bad.cu", "extern int f(", {}, ["-arch=sm_90"])


@pytest.mark.skipif(nvcc_path() is None, reason="nvcc is not installed")
def test_without_nvrtc_nvcc_takes_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling.driver, "nvrtc_version", lambda: None)
    assert str(compiler_name()).startswith("nvcc")
    assert compile_kernel("preprocess", SETTINGS, "sm_90", tmp_path).startswith(b"\x7fELF")
    with pytest.raises(ModelError, match=r"nvcc refused preprocess.cu for sm_90"):
        compile_kernel("preprocess", {**SETTINGS, "OUT_T": "no_such_type"}, "sm_90", tmp_path)


def test_without_a_compiler_one_sentence_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiling.driver, "nvrtc_version", lambda: None)
    monkeypatch.setattr(compiling, "nvcc_path", lambda: None)
    with pytest.raises(ModelError, match="pip install cuda-bindings nvidia-cuda-nvrtc"):
        compile_kernel("preprocess", SETTINGS, "sm_90", tmp_path)
