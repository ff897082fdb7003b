"""Builds the stand-in for NVIDIA's driver, which runs GPU code on a machine without a GPU."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from realtime_ssd_engines.requirements import has_bindings

from tests.engines.standins import unavailable

__all__ = ["BINDINGS", "HOST_GPU", "build_driver", "run_pytest_on_standins", "standin_environment"]

HOST = Path(__file__).parent / "host"
HOST_GPU = "REALTIME_SSD_HOST_GPU"
"""Environment variable that is set in processes that run on the stand-in."""
BINDINGS = "REALTIME_SSD_TEST_BINDINGS"
"""Environment variable with the bindings that a process must use, see `conftest.py`."""


def pycuda_library() -> Path | None:
    """Return PyCUDA's extension module without importing it, which requires a driver."""
    spec = importlib.util.find_spec("pycuda")
    if spec is None or not spec.submodule_search_locations:
        return None
    return next(Path(spec.submodule_search_locations[0]).glob("_driver*.so"))


def driver_functions(library: Path | None) -> set[str]:
    """Return the libcuda functions that a library links to."""
    if library is None:
        return set()
    command = ["nm", "-D", "--undefined-only", str(library)]
    symbols = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return set(re.findall(r" U (cu[A-Z]\w+)", symbols))


def build_driver(folder: Path) -> Path:
    """Compile `libcuda.so.1`; functions that are not implemented return "not found"."""
    if not shutil.which("g++") or not shutil.which("nm"):
        unavailable("g++ and nm are required to build the stand-in for the driver")
    if not has_bindings():
        unavailable("neither PyCUDA nor cuda-bindings is installed")
    source = (HOST / "driver.cpp").read_text()
    missing = driver_functions(pycuda_library()) - set(re.findall(r"\bcu[A-Z]\w+", source))
    stubs = "".join(f'extern "C" int {name}() {{ return 500; }}\n' for name in sorted(missing))
    complete_source = folder / "driver.cpp"
    complete_source.write_text(source + stubs)
    library = folder / "libcuda.so.1"
    flags = ["-std=c++20", "-O1", "-g", "-fPIC", "-shared", "-Wall", "-Werror"]
    command = ["g++", *flags, "-Wl,-soname,libcuda.so.1", str(complete_source)]
    subprocess.run(
        [*command, "-o", str(library), "-ldl"], check=True, capture_output=True, text=True
    )
    return library


def standin_environment(driver_folder: Path, python_path: Path | None = None) -> dict[str, str]:
    """Build the stand-in and return the environment of a process that loads it.

    Args:
        driver_folder: Folder for `libcuda.so.1`.
        python_path: Folder to prepend to PYTHONPATH.
    """
    build_driver(driver_folder)
    environment = dict(os.environ)
    for name, folder in (("LD_LIBRARY_PATH", driver_folder), ("PYTHONPATH", python_path)):
        folders = [str(folder) if folder else "", os.environ.get(name, "")]
        environment[name] = ":".join(filter(None, folders))
    return environment


def run_pytest_on_standins(
    driver_folder: Path,
    files: Sequence[Path | str],
    python_path: Path | None = None,
    bindings: str = "",
    **variables: str,
) -> None:
    """Run test files in a process that loads the stand-in for the driver.

    Args:
        driver_folder: Folder for `libcuda.so.1`.
        files: Test files to run, and further arguments of pytest.
        python_path: Folder of further stand-ins.
        bindings: "pycuda" or "cuda-bindings", which the files then use; by default those that the
            program prefers.
        **variables: Environment variables.
    """
    if bindings == "pycuda" and importlib.util.find_spec("pycuda") is None:
        unavailable("PyCUDA is not installed")
    if bindings:
        variables[BINDINGS] = bindings
    environment = {**standin_environment(driver_folder, python_path), HOST_GPU: "1", **variables}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "-p",
        "no:cacheprovider",
        *map(str, files),
    ]
    result = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=590
    )
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
    assert " passed" in result.stdout
