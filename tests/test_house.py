"""The arrows between the rooms, the house measure, and what an import costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("realtime_ssd", "engines", "training")
FILES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


ARROWS = {
    "torch": ("training/", "realtime_ssd/cli/train.py"),  # which only asks whether it is there
    "tensorrt": ("engines/",),
    "av": ("realtime_ssd/sources/", "realtime_ssd/sinks/", "realtime_ssd/cli/doctor.py"),
    "pycuda": ("realtime_ssd/cuda/",),
    "training": ("training/", "realtime_ssd/cli/", "realtime_ssd/zoo.py"),
    "engines": (
        "engines/",
        "training/export.py",
        "realtime_ssd/backends/tensorrt.py",
        "realtime_ssd/cli/",
        "realtime_ssd/benchmark/plan.py",
    ),
}


@pytest.mark.parametrize("library", ARROWS)
def test_arrows(library: str) -> None:
    for path in FILES:
        place = path.relative_to(ROOT).as_posix()
        if any(name.split(".")[0] == library for name in imports(path)):
            assert place.startswith(ARROWS[library]), f"{place} imports {library}"


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count the lines of a function after its docstring."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def test_measure() -> None:
    lengths = []
    for path in FILES:
        text = path.read_text()
        assert len(text.splitlines()) <= 400, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lengths.append(body_lines(node))
                assert lengths[-1] <= 60, f"{path}: {node.name}"
    lengths.sort()
    assert lengths[len(lengths) // 2] <= 12
    assert lengths[len(lengths) * 9 // 10] <= 35


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from realtime_ssd.cli import build_app\n"
        "build_app().help_print([])\n"
        "heavy = {'torch', 'tensorrt', 'pycuda', 'cv2', 'av', 'onnx', 'onnxruntime', 'scipy',"
        " 'matplotlib', 'supervision'}\n"
        "sys.exit(', '.join(sorted(heavy & set(sys.modules))) or 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr


def test_the_program_needs_no_torch_or_gpu_package() -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'tensorrt', 'pycuda', 'cuda'):\n"
        "    sys.modules[name] = None\n"
        "import realtime_ssd.detector, realtime_ssd.cli.detect, realtime_ssd.cli.running\n"
        "import realtime_ssd.sources.file, realtime_ssd.sinks.video\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.mark.parametrize("module", ["sources.stream", "sources.file", "sinks.video", "sinks.audio"])
def test_opencv_is_loaded_before_pyav(module: str) -> None:
    """The other way round, the first window waits for ever."""
    program = (
        f"import sys, realtime_ssd.{module}; loaded = list(sys.modules); "
        "sys.exit(loaded.index('cv2') > loaded.index('av'))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
