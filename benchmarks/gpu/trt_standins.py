"""Makes NVIDIA's TensorRT bindings importable on machines without the libraries they link to.

A missing library is replaced by one that contains only the functions that the bindings import, each
of which returns 0. This is sufficient to import and inspect the bindings, and for nothing else.
"""

from __future__ import annotations

import re
import subprocess
import zipfile
from pathlib import Path

__all__ = ["unpack"]

_LARGE = "builder_resource"  # 1 GB of kernels, opened only by a build


def unpack(wheel: Path, folder: Path) -> tuple[str, list[Path]]:
    """Unpack a wheel of bindings and compile replacements for missing libraries.

    Args:
        wheel: Wheel of `tensorrt` 8.6.0 or `tensorrt-cuNN-bindings`.
        folder: Target folder.

    Returns:
        Name of the package, and the folders that contain its libraries.
    """
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if _LARGE not in name]
        archive.extractall(folder, names)
    package = next(name.split("/")[0] for name in names if name.endswith("/tensorrt.so"))
    package_folder, standins = folder / package, folder / "standins"
    standins.mkdir()
    libraries = sorted(package_folder.glob("*.so*"))
    present = {library.name for library in libraries}
    absent = {name for library in libraries for name in _needed(library)} - present
    missing = sorted(name for name in absent if name.startswith(("libnv", "libcu")))
    for name in missing:
        _compile(name, libraries, missing, standins)
    return package, [package_folder, standins]


def _needed(library: Path) -> list[str]:
    return re.findall(r"NEEDED.*\[(.+?)\]", _run("readelf", "-dW", str(library)))


def _undefined(library: Path) -> list[tuple[str, str]]:
    """Return the undefined functions of a library with their symbol version, or ""."""
    symbols = _run("nm", "-D", "--undefined-only", str(library))
    return re.findall(r"^\s+U (\w+)(?:@+(\S+))?$", symbols, re.MULTILINE)


def _compile(name: str, libraries: list[Path], missing: list[str], folder: Path) -> None:
    undefined = {
        pair for library in libraries if name in _needed(library) for pair in _undefined(library)
    }
    versioned = {function for function, version in undefined if version == name}
    plain = {f for f, version in undefined if not version and not f.startswith(("Py", "_Py", "_Z"))}
    functions = versioned or (plain if name == missing[0] or not versioned else set())
    source = folder / f"{name}.c"
    source.write_text(
        "".join(f"void *{function}(void) {{ return 0; }}\n" for function in sorted(functions))
    )
    command = ["gcc", "-shared", "-fPIC", "-fno-builtin", "-w", f"-Wl,-soname,{name}", str(source)]
    if versioned:
        script = folder / f"{name}.map"
        script.write_text(f"{name} {{ global: *; }};\n")
        command.append(f"-Wl,--version-script={script}")
    _run(*command, "-o", str(folder / name))


def _run(*command: str) -> str:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(f"{command[0]} failed: {result.stderr.strip()}")
    return result.stdout
