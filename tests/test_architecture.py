"""Which package may import which, sizes of files and functions, and what an import costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {
    "realtime_ssd": ROOT / "realtime_ssd",
    "realtime_ssd_engines": ROOT / "engines" / "realtime_ssd_engines",
    "realtime_ssd_training": ROOT / "training" / "realtime_ssd_training",
}
FILES = {
    ".".join((package, *path.relative_to(folder).with_suffix("").parts)).removesuffix(
        ".__init__"
    ): path
    for package, folder in PACKAGES.items()
    for path in sorted(folder.rglob("*.py"))
}
"""Every module of the three packages by its dotted name."""

ALLOWED = {
    "torch": ("realtime_ssd_training",),
    "tensorrt": ("realtime_ssd_engines",),
    "tensorrt_rtx_bindings": ("realtime_ssd_engines",),
    "pycuda": ("realtime_ssd_engines",),
    "cuda": ("realtime_ssd_engines",),
    "av": ("realtime_ssd.sources", "realtime_ssd.sinks"),
    "realtime_ssd_engines": ("realtime_ssd_engines", "realtime_ssd_training"),
    "realtime_ssd_training": ("realtime_ssd_training",),
    "benchmarks": (),
    "tests": (),
}
"""Packages and the parts of the project that may import them."""

LAYERS = (
    ("core",),
    ("annotators", "backends", "processors", "sinks", "sources", "synthetic", "zoo"),
    ("pipeline",),
    ("detector", "profiling"),
    ("cli",),
)
"""Parts of `realtime_ssd`, lowest first; a module imports from its own layer and lower ones."""


def imports(path: Path) -> Iterator[str]:
    """Yield the dotted names a file imports, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


@pytest.mark.parametrize("library", ALLOWED)
def test_only_the_right_packages_import(library: str) -> None:
    for module, path in FILES.items():
        if any(within(name, library) for name in imports(path)):
            assert any(within(module, part) for part in ALLOWED[library]), module


def layer_of(module: str) -> int | None:
    parts = module.split(".")
    if parts[0] != "realtime_ssd" or len(parts) < 2:
        return None
    return next((n for n, names in enumerate(LAYERS) if parts[1] in names), None)


def test_imports_point_downwards() -> None:
    for module, path in FILES.items():
        own = layer_of(module)
        if own is None:
            continue
        for name in imports(path):
            other = layer_of(name)
            assert other is None or other <= own, f"{module} imports {name}"


def test_every_module_has_a_layer() -> None:
    top = {name.split(".")[1] for name in FILES if name.startswith("realtime_ssd.")}
    assert top - {"__main__"} <= {name for layer in LAYERS for name in layer}


def test_no_circular_imports() -> None:
    """Imports under TYPE_CHECKING and inside functions count too."""
    arrows = {
        module: {name for name in imports(path) if name in FILES and name != module}
        for module, path in FILES.items()
    }
    # A package's `__init__` is only re-exports and entry points of its submodules.
    finished: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " → ".join((*trail[trail.index(module) :], module))
        if module not in finished:
            for other in sorted(arrows[module]):
                if not within(module, other) or other not in trail:
                    visit(other, (*trail, module))
            finished.add(module)

    for module in arrows:
        visit(module, ())


WINDOW = {"namedWindow", "waitKey", "destroyAllWindows", "resizeWindow"}


def test_only_the_window_sink_opens_windows() -> None:
    for module, path in FILES.items():
        names = {
            n.attr for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Attribute)
        }
        assert not names & WINDOW or module == "realtime_ssd.sinks.window", module


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count the lines of a function after its docstring."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def test_measure() -> None:
    lengths = []
    for path in FILES.values():
        text = path.read_text()
        assert len(text.splitlines()) <= 400, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lengths.append(body_lines(node))
                assert lengths[-1] <= 60, f"{path}: {node.name}"
    lengths.sort()
    assert lengths[len(lengths) // 2] <= 10
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
        "import realtime_ssd.detector, realtime_ssd.cli.detect, realtime_ssd.cli.run\n"
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
