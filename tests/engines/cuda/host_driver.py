"""Builds the stand-in for NVIDIA's driver, so that the GPU code runs on a machine without a GPU."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from realtime_ssd_engines.requirements import has_bindings

HOST = Path(__file__).parent / "host"


def pycuda_library() -> Path | None:
    """Find PyCUDA's compiled module without importing it, which needs a driver."""
    found = importlib.util.find_spec("pycuda")
    if found is None or not found.submodule_search_locations:
        return None
    return next(Path(found.submodule_search_locations[0]).glob("_driver*.so"))


def driver_functions(library: Path | None) -> set[str]:
    """List the functions of libcuda that a library is linked against."""
    if library is None:
        return set()
    command = ["nm", "-D", "--undefined-only", str(library)]
    listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return set(re.findall(r" U (cu[A-Z]\w+)", listing))


def build_driver(folder: Path) -> Path:
    """Compile `libcuda.so.1` into a folder; what is not written out answers "not found"."""
    if not shutil.which("g++") or not shutil.which("nm"):
        pytest.skip("g++ and nm are needed to build the stand-in for the driver")
    if not has_bindings():
        pytest.skip("neither PyCUDA nor cuda-bindings is installed")
    source = (HOST / "driver.cpp").read_text()
    missing = driver_functions(pycuda_library()) - set(re.findall(r"\bcu[A-Z]\w+", source))
    rest = "".join(f'extern "C" int {name}() {{ return 500; }}\n' for name in sorted(missing))
    whole = folder / "driver.cpp"
    whole.write_text(source + rest)
    library = folder / "libcuda.so.1"
    flags = ["-std=c++20", "-O1", "-g", "-fPIC", "-shared", "-Wall", "-Werror"]
    command = ["g++", *flags, "-Wl,-soname,libcuda.so.1", str(whole), "-o", str(library), "-ldl"]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return library
