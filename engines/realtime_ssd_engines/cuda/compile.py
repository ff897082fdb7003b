"""Turns the kernel sources into machine code for one GPU, and keeps it on disk.

NVRTC, which comes as an ordinary package, is asked first; nvcc of an installed toolkit otherwise.
The result is machine code (a cubin), not PTX, so that neither a newer compiler than the driver nor
the driver's own compiler gets in the way.
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
from realtime_ssd.core.files import replace_file
from realtime_ssd_engines.cuda import driver

__all__ = ["KERNELS", "compile_kernel", "compiler_name", "nvcc_path", "with_nvcc"]

KERNELS = Path(__file__).parent / "kernels"
FLAGS = ("-std=c++17", "-fmad=false")
"""Products and sums stay apart, as numpy has them, so that boundaries fall the same way."""

Kernel = Literal["detect", "preprocess"]


def nvcc_path() -> str | None:
    """Find nvcc on the path or in the usual folder of the toolkit."""
    root = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH") or "/usr/local/cuda"
    return shutil.which("nvcc") or shutil.which("nvcc", path=str(Path(root) / "bin"))


def compiler_name() -> str | None:
    """Name the compiler that is used here, such as "NVRTC 13.0", or None if there is none."""
    version = driver.nvrtc_version()
    if version:
        return "NVRTC {}.{}".format(*version)
    path = nvcc_path()
    return f"nvcc ({path})" if path else None


def compile_kernel(
    name: Kernel, settings: Mapping[str, str], architecture: str, cache: Path | None = None
) -> bytes:
    """Give the machine code of `kernels/NAME.cu`, from the cache where it has been made before.

    Args:
        name: Which source.
        settings: Preprocessor definitions, see `realtime_ssd_engines.cuda.kernel_params`.
        architecture: Such as "sm_90".
        cache: Folder of the cache; the user's own if None. One that cannot be written is done
            without.

    Returns:
        A cubin.

    Raises:
        ModelError: If there is no compiler, or it refuses the source.
    """
    compiler = compiler_name()
    if compiler is None:
        raise ModelError(
            "the GPU kernels cannot be compiled: neither NVRTC nor nvcc was found; "
            "install NVRTC with: pip install cuda-bindings nvidia-cuda-nvrtc"
        )
    options = [*FLAGS, *(f"-D{key}={value}" for key, value in sorted(settings.items()))]
    sources = {file.name: file.read_text() for file in sorted(KERNELS.glob("*.cu*"))}
    told = "\0".join([name, architecture, compiler, *options, *sources.values()])
    folder = cache or _own_folder()
    kept = folder / f"{name}-{architecture}-{hashlib.sha256(told.encode()).hexdigest()[:20]}.cubin"
    if kept.is_file():
        return kept.read_bytes()
    if compiler.startswith("NVRTC"):
        cubin = _with_nvrtc(name, sources, architecture, options)
    else:
        cubin, _ = with_nvcc(name, architecture, options)
    _keep(kept, cubin)
    return cubin


def _own_folder() -> Path:
    from platformdirs import user_cache_path

    return user_cache_path("realtime-ssd") / "kernels"


def _with_nvrtc(name: str, sources: dict[str, str], architecture: str, options: list[str]) -> bytes:
    headers = {file: text for file, text in sources.items() if file.endswith(".cuh")}
    arguments = [*options, f"-arch={architecture}", "-default-device"]
    return driver.nvrtc_compile(f"{name}.cu", sources[f"{name}.cu"], headers, arguments)


def with_nvcc(name: str, architecture: str, options: list[str]) -> tuple[bytes, str]:
    """Compile with nvcc; errors as `compile_kernel`.

    Returns:
        The cubin, and what nvcc had to say.
    """
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "kernel.cubin"
        command = [str(nvcc_path()), "-cubin", f"-arch={architecture}", *options]
        command += [str(KERNELS / f"{name}.cu"), "-o", str(target)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            raise ModelError(f"nvcc refused {name}.cu for {architecture}: {result.stderr.strip()}")
        return target.read_bytes(), result.stderr + result.stdout


def _keep(path: Path, content: bytes) -> None:
    """Keep a cubin where that is possible."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, content)
    except OSError:
        return
