"""Compilation of the kernels on this machine, and its cache."""

from __future__ import annotations

from pathlib import Path

import pytest
from realtime_ssd_engines.cuda import compile as compile_module
from realtime_ssd_engines.cuda import nvrtc
from realtime_ssd_engines.cuda.compile import compile_kernel, compiler_name, nvcc_path
from realtime_ssd_engines.cuda.kernel_params import preprocess_settings
from realtime_ssd_engines.cuda.nvrtc import nvrtc_compile

from realtime_ssd.core.errors import ModelError
from realtime_ssd.core.spec import InputSpec

SETTINGS = preprocess_settings(InputSpec(300, 300), "fp16")


@pytest.mark.usefixtures("needs_nvrtc")
def test_nvrtc_compiles_to_machine_code_and_caches_it(tmp_path: Path) -> None:
    cubin = compile_kernel("preprocess", SETTINGS, "sm_90", tmp_path)
    assert cubin.startswith(b"\x7fELF")
    (cached,) = tmp_path.iterdir()
    assert cached.name.startswith("preprocess-sm_90-")
    cached.write_bytes(b"from the cache")
    assert compile_kernel("preprocess", SETTINGS, "sm_90", tmp_path) == b"from the cache"
    other = {**SETTINGS, "SWAP_RB": "0"}
    assert compile_kernel("preprocess", other, "sm_90", tmp_path).startswith(b"\x7fELF")
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.usefixtures("needs_nvrtc")
def test_a_cache_folder_that_is_not_writable_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    cubin = compile_kernel("preprocess", SETTINGS, "sm_75", tmp_path / "file" / "kernels")
    assert cubin.startswith(b"\x7fELF")


@pytest.mark.usefixtures("needs_nvrtc")
def test_nvrtc_errors_contain_the_compiler_log() -> None:
    with pytest.raises(ModelError, match=r"NVRTC cannot compile bad.cu: .*error"):
        nvrtc_compile("bad.cu", "extern int f(", {}, ["-arch=sm_90"])


@pytest.mark.usefixtures("needs_nvrtc")
def test_gpus_newer_than_nvrtc_get_ptx(tmp_path: Path) -> None:
    newest = nvrtc.nvrtc_architectures()[-1]
    code = compile_kernel("preprocess", SETTINGS, "sm_999", tmp_path)
    assert f".target sm_{newest}".encode() in code


@pytest.mark.usefixtures("needs_nvrtc")
def test_gpus_that_nvrtc_no_longer_supports_need_nvcc(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compile_module, "nvcc_path", lambda: None)
    with pytest.raises(ModelError, match=r"NVRTC [\d.]+ does not support sm_35; run pip install"):
        compile_kernel("preprocess", SETTINGS, "sm_35", tmp_path)


@pytest.mark.usefixtures("needs_nvrtc")
def test_nvrtc_errors_contain_no_null_characters() -> None:
    with pytest.raises(ModelError) as error:
        nvrtc_compile("bad.cu", "extern int f(", {}, ["-arch=sm_90"])
    assert "\0" not in str(error.value)


@pytest.mark.skipif(nvcc_path() is None, reason="nvcc is not installed")
def test_nvcc_is_used_without_nvrtc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvrtc, "nvrtc_version", lambda: None)
    assert str(compiler_name()).startswith("nvcc")
    assert compile_kernel("preprocess", SETTINGS, "sm_90", tmp_path).startswith(b"\x7fELF")
    with pytest.raises(ModelError, match=r"nvcc cannot compile preprocess.cu for sm_90"):
        compile_kernel("preprocess", {**SETTINGS, "OUT_T": "no_such_type"}, "sm_90", tmp_path)


def test_without_a_compiler_the_error_names_the_packages_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nvrtc, "nvrtc_version", lambda: None)
    monkeypatch.setattr(compile_module, "nvcc_path", lambda: None)
    with pytest.raises(ModelError, match=r"pip install 'realtime-ssd\[gpu\]'"):
        compile_kernel("preprocess", SETTINGS, "sm_90", tmp_path)
