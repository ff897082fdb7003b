"""Makes NVIDIA's binding packages importable where the libraries behind them are absent.

A library that a binding is linked to and that is not there is compiled from nothing but the
functions that are asked of it; each returns 0. That is enough to import the bindings and to look
at them, and for nothing else.
"""

from __future__ import annotations

import re
import subprocess
import zipfile
from pathlib import Path

__all__ = ["unpack"]

_LARGE = "builder_resource"  # 1 GB of kernels, opened only by a build


def unpack(wheel: Path, folder: Path) -> tuple[str, list[Path]]:
    """Unpack a binding wheel and compile what its libraries lack.

    Args:
        wheel: Of `tensorrt` 8.6.0 or of `tensorrt-cuNN-bindings`.
        folder: Where to.

    Returns:
        Name of the package in it, and the folders in which its libraries are.
    """
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if _LARGE not in name]
        archive.extractall(folder, names)
    package = next(name.split("/")[0] for name in names if name.endswith("/tensorrt.so"))
    own, made = folder / package, folder / "standins"
    made.mkdir()
    libraries = sorted(own.glob("*.so*"))
    have = {library.name for library in libraries}
    wanted = {name for library in libraries for name in _needed(library)} - have
    missing = sorted(name for name in wanted if name.startswith(("libnv", "libcu")))
    for name in missing:
        _compile(name, libraries, missing, made)
    return package, [own, made]


def _needed(library: Path) -> list[str]:
    return re.findall(r"NEEDED.*\[(.+?)\]", _run("readelf", "-dW", str(library)))


def _undefined(library: Path) -> list[tuple[str, str]]:
    """List the functions that a library lacks, each with the version it is asked for, or ""."""
    listing = _run("nm", "-D", "--undefined-only", str(library))
    return re.findall(r"^\s+U (\w+)(?:@+(\S+))?$", listing, re.MULTILINE)


def _compile(name: str, libraries: list[Path], missing: list[str], folder: Path) -> None:
    wanted = {
        pair for library in libraries if name in _needed(library) for pair in _undefined(library)
    }
    versioned = {function for function, version in wanted if version == name}
    plain = {f for f, version in wanted if not version and not f.startswith(("Py", "_Py", "_Z"))}
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
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {done.stderr.strip()}")
    return done.stdout
