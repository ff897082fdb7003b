"""Allowed imports, sizes of files and functions, names of modules, and what an import loads."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {
    "realtime_ssd": ROOT / "realtime_ssd",
    "realtime_ssd_engines": ROOT / "engines" / "realtime_ssd_engines",
    "realtime_ssd_training": ROOT / "training" / "realtime_ssd_training",
}
MODULES = {
    ".".join((package, *path.relative_to(folder).with_suffix("").parts)).removesuffix(
        ".__init__"
    ): path
    for package, folder in PACKAGES.items()
    for path in sorted(folder.rglob("*.py"))
}
"""Every module of the three packages by its dotted name."""

IMPORTERS = {
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
"""Restricted packages, and the parts of the project that may import them."""

LAYERS = {
    "realtime_ssd": (
        ("core",),
        ("annotators", "backends", "processors", "sinks", "sources", "synthetic", "zoo"),
        ("pipeline",),
        ("detector", "profiling"),
        ("", "cli"),
        ("__main__",),
    ),
    "realtime_ssd_engines": (
        ("", "cuda", "onnx", "requirements"),
        ("tensorrt",),
        ("backend",),
        ("loading",),
        ("cli", "plugin"),
    ),
    "realtime_ssd_training": (
        ("data", "recipe", "weights"),
        ("models",),
        ("evaluation",),
        ("engine",),
        ("export",),
        ("importers",),
        ("training_run",),
        ("training_api",),
        ("", "cli", "illustrate"),
    ),
}
"""Parts of each package, lowest first; a module imports from its own layer and lower ones. The
package itself is the part ""."""

WINDOW_MODULES = ("realtime_ssd.sinks.window", "realtime_ssd.sinks.zone_editor")
WINDOW_FUNCTIONS = {"namedWindow", "waitKey", "destroyAllWindows", "resizeWindow"}

REPEATED_NAMES = {
    "__init__": "Python",
    "__main__": "Python",
    "base": "the interface of its package",
    "plugin": "what its package registers",
    "demo": "the source and the dataset of the synthetic street",
    "images": "the source, the sink and the dataset of image files",
}
"""Names that several modules may have, and what they mean; in `cli`, commands give the names."""


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imported_names(path: Path) -> Iterator[str]:
    """Yield the dotted names that a file imports, also inside functions and TYPE_CHECKING."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)


def is_within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


@pytest.mark.parametrize("library", IMPORTERS)
def test_restricted_packages_are_imported_only_where_allowed(library: str) -> None:
    for module, path in MODULES.items():
        if any(is_within(name, library) for name in imported_names(path)):
            assert any(is_within(module, part) for part in IMPORTERS[library]), module


def part_of(module: str) -> tuple[str, str]:
    package, _, rest = module.partition(".")
    return package, rest.partition(".")[0]


def layer_of(module: str) -> int | None:
    package, part = part_of(module)
    layers = LAYERS.get(package, ())
    return next((number for number, names in enumerate(layers) if part in names), None)


def test_imports_point_downwards() -> None:
    for module, path in MODULES.items():
        layer = layer_of(module)
        if layer is None and part_of(module)[0] == "realtime_ssd_training":
            continue
        assert layer is not None, f"{module} has no layer"
        for name in imported_modules(path):
            if part_of(name)[0] == part_of(module)[0]:
                assert (layer_of(name) or 0) <= layer, f"{module} imports {name}"


def imported_modules(path: Path) -> set[str]:
    """Return the modules of the project that a file imports.

    `from package import module` imports the module, `from package import name` the package.
    """
    names = set(imported_names(path))
    parents = {name.rpartition(".")[0] for name in names & set(MODULES)}
    return {name for name in names if name in MODULES and name not in parents}


def test_no_circular_imports() -> None:
    graph = {
        module: {name for name in imported_names(path) if name in MODULES and name != module}
        for module, path in MODULES.items()
    }
    finished: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " → ".join((*trail[trail.index(module) :], module))
        if module not in finished:
            for imported in sorted(graph[module]):
                # A submodule may import its package, whose `__init__` re-exports submodules.
                if not is_within(module, imported) or imported not in trail:
                    visit(imported, (*trail, module))
            finished.add(module)

    for module in graph:
        visit(module, ())


def test_only_sinks_open_windows() -> None:
    for module, path in MODULES.items():
        nodes = ast.walk(parsed(path))
        names = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
        assert not names & WINDOW_FUNCTIONS or module in WINDOW_MODULES, module


def test_modules_are_named_by_content() -> None:
    """Two modules with the same name are as hard to tell apart as two called `utils`."""
    paths = defaultdict(list)
    for path in [*MODULES.values(), *sorted((ROOT / "benchmarks").rglob("*.py"))]:
        if path.parent.name != "cli":
            paths[path.stem].append(str(path.relative_to(ROOT)))
    repeated = {name: files for name, files in paths.items() if len(files) > 1}
    assert set(repeated) <= set(REPEATED_NAMES), repeated
    assert not set(paths) & {"common", "helpers", "misc", "util", "utils"}


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the number of lines of a function after its docstring."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def test_files_and_functions_are_short() -> None:
    lengths = []
    for path in MODULES.values():
        text = path.read_text()
        assert len(text.splitlines()) <= 400, path
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lengths.append(body_lines(node))
                assert lengths[-1] <= 60, f"{path}: {node.name}"
    lengths.sort()
    assert lengths[len(lengths) // 2] <= 10
    assert lengths[len(lengths) * 9 // 10] <= 35


def test_help_imports_no_large_package() -> None:
    code = (
        "import sys\n"
        "from realtime_ssd.cli import build_app\n"
        "build_app().help_print([])\n"
        "large = {'torch', 'tensorrt', 'pycuda', 'cv2', 'av', 'onnx', 'onnxruntime', 'scipy',"
        " 'matplotlib', 'supervision', 'pooch', 'requests'}\n"
        "sys.exit(', '.join(sorted(large & set(sys.modules))) or 0)\n"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert finished.returncode == 0, finished.stderr


def test_program_runs_without_packages_of_extras() -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'tensorrt', 'pycuda', 'cuda', 'supervision', 'scipy',\n"
        "             'matplotlib', 'msgspec', 'PIL'):\n"
        "    sys.modules[name] = None\n"
        "from realtime_ssd.cli import main\n"
        "sys.exit(main(['--source', 'demo:64x48,frames=2', '--json', '-']))\n"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert finished.returncode == 0, finished.stderr
    assert len(finished.stdout.splitlines()) == 2


@pytest.mark.parametrize(
    "module",
    ["sources.stream", "sources.file", "sinks.video", "sinks.copied_tracks", "sources.timestamps"],
)
def test_opencv_is_imported_before_pyav(module: str) -> None:
    """In the other order, opening a window hangs."""
    program = (
        f"import sys, realtime_ssd.{module}; loaded = list(sys.modules); "
        "sys.exit(loaded.index('cv2') > loaded.index('av'))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
