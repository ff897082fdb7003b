"""Compiles the CUDA kernels for one GPU architecture and caches the machine code on disk.

NVRTC, which is available as a Python package, is preferred over nvcc of an installed toolkit. The
output is a cubin, which loads even if the compiler is newer than the driver. For GPUs newer than
NVRTC it is PTX, which the driver compiles.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from realtime_ssd.core.errors import ModelError
from realtime_ssd.core.files import cache_folder, replace_file
from realtime_ssd_engines.cuda import nvrtc
from realtime_ssd_engines.requirements import install_command

__all__ = [
    "KERNELS",
    "compile_kernel",
    "compile_with_nvcc",
    "compiler_name",
    "nvcc_path",
    "require_compiler",
]

KERNELS = Path(__file__).parent / "kernels"
FLAGS = ("-std=c++17", "-fmad=false", "-lineinfo")
"""Multiplications and additions are not fused, so that results round as numpy's do. Line numbers,
which sanitizers and profilers show, do not change the code."""

Kernel = Literal["detect", "preprocess"]


def nvcc_path() -> str | None:
    """Return the path of nvcc from PATH or the CUDA toolkit's default folder."""
    root = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH") or "/usr/local/cuda"
    return shutil.which("nvcc") or shutil.which("nvcc", path=str(Path(root) / "bin"))


def compiler_name() -> str | None:
    """Return the kernel compiler that is used, such as "NVRTC 13.0", or None without one."""
    version = nvrtc.nvrtc_version()
    if version:
        return "NVRTC {}.{}".format(*version)
    path = nvcc_path()
    return f"nvcc ({path})" if path else None


def require_compiler() -> str:
    """Return the name of the kernel compiler.

    Raises:
        ModelError: If there is none.
    """
    compiler = compiler_name()
    if compiler is None:
        raise ModelError(
            "the GPU kernels cannot be compiled: neither NVRTC nor nvcc was found; install NVRTC "
            f"with: {install_command()}"
        )
    return compiler


def compile_kernel(
    name: Kernel, settings: Mapping[str, str], architecture: str, cache: Path | None = None
) -> bytes:
    """Return the machine code of `kernels/NAME.cu`, from the cache if it was compiled before.

    Args:
        name: Source file without suffix.
        settings: Preprocessor definitions, see `realtime_ssd_engines.cuda.kernel_params`.
        architecture: Such as "sm_90".
        cache: Cache folder; the user's cache by default. A folder that is not writable is ignored.

    Returns:
        A cubin or PTX.

    Raises:
        ModelError: If there is no compiler for the architecture, or the compilation fails.
    """
    compiler = require_compiler()
    options = [*FLAGS, *(f"-D{key}={value}" for key, value in sorted(settings.items()))]
    sources = {file.name: file.read_text() for file in sorted(KERNELS.glob("*.cu*"))}
    fingerprint = "\0".join([name, architecture, compiler, *options, *sources.values()])
    digest = hashlib.sha256(fingerprint.encode()).hexdigest()[:20]
    cached = (cache or cache_folder("kernels")) / f"{name}-{architecture}-{digest}.cubin"
    if cached.is_file():
        return cached.read_bytes()
    if compiler.startswith("NVRTC"):
        cubin = _compile_with_nvrtc(name, sources, architecture, options)
    else:
        cubin, _ = compile_with_nvcc(name, architecture, options)
    _write_cache(cached, cubin)
    return cubin


def _compile_with_nvrtc(
    name: str, sources: dict[str, str], architecture: str, options: list[str]
) -> bytes:
    number, supported = int(architecture.removeprefix("sm_")), nvrtc.nvrtc_architectures()
    older = [known for known in supported if known < number]
    ptx = number not in supported and bool(older)
    if number not in supported and not ptx:
        if nvcc_path():
            return compile_with_nvcc(name, architecture, options)[0]
        raise ModelError(
            f"{compiler_name()} does not support {architecture}; run {install_command()}, or "
            "install a CUDA toolkit with nvcc"
        )
    target = f"compute_{older[-1]}" if ptx else architecture
    headers = {file: text for file, text in sources.items() if file.endswith(".cuh")}
    arguments = [*options, f"-arch={target}", "-default-device"]
    return nvrtc.nvrtc_compile(f"{name}.cu", sources[f"{name}.cu"], headers, arguments, ptx=ptx)


def compile_with_nvcc(name: str, architecture: str, options: list[str]) -> tuple[bytes, str]:
    """Compile `kernels/NAME.cu` with nvcc.

    Returns:
        The cubin and the compiler's output.

    Raises:
        ModelError: If the compilation fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "kernel.cubin"
        command = [str(nvcc_path()), "-cubin", f"-arch={architecture}", *options]
        command += [str(KERNELS / f"{name}.cu"), "-o", str(target)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            raise ModelError(
                f"nvcc cannot compile {name}.cu for {architecture}: {result.stderr.strip()}"
            )
        return target.read_bytes(), result.stderr + result.stdout


def _write_cache(path: Path, content: bytes) -> None:
    """Write a cubin to the cache; do nothing if the folder is not writable."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, content)
    except OSError:
        return
