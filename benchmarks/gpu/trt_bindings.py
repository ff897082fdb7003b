"""Does every TensorRT name that the engines room uses exist in TensorRT 8.6, 10 and 11?

The real binding packages import on a machine without a GPU once the libraries they are linked to
are there; where those are not, stand-ins of a few functions are compiled. Every attribute that
`engines/` takes from TensorRT's module and objects is then looked up in the real bindings, keyword
and number of arguments are held against the signatures, and all that needs no GPU is called.

    python -m benchmarks.gpu.trt_bindings WHEEL... [--output FILE]   unpack wheels, check each
    python -m benchmarks.gpu.trt_bindings --here                     check the TensorRT of this Python

With wheels, this Python must be the one they are made for and have numpy.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmarks.gpu.trt_standins import unpack

__all__ = ["ALTERNATIVES", "Use", "check", "uses"]

ROOT = Path(__file__).resolve().parents[2]
ENGINES = ROOT / "engines" / "realtime_ssd_engines" / "tensorrt"
FILES = ("compat.py", "library.py", "network.py", "toolchain.py")
RESULTS = Path(__file__).parents[1] / "results" / "tensorrt-bindings.json"

OBJECTS = {
    "builder": "Builder",
    "network": "INetworkDefinition",
    "config": "IBuilderConfig",
    "parser": "OnnxParser",
    "profile": "IOptimizationProfile",
    "layer": "ILayer",
    "made": "ITimingCache",
    "engine": "ICudaEngine",
    "context": "IExecutionContext",
    "_profiled": "IExecutionContext",
    "formats": "LayerInformationFormat",
    "flags": "BuilderFlag",
    "strategies": "ExecutionContextAllocationStrategy",
}
"""What the variables and attributes of these names are."""

OWN = {"network.py": {"network"}, "toolchain.py": {"network"}}
"""Where a name means an object of the project instead."""

CALLS = {
    "Runtime": {"deserialize_cuda_engine"},
    "EngineInspector": {"get_engine_information"},
    "ITensor": {"dtype"},
    "ParserError": {"desc"},
}
"""Names used on objects that have no variable of their own."""

ALTERNATIVES = {
    "ICudaEngine.device_memory_size": "ICudaEngine.device_memory_size_v2",
    "ICudaEngine.device_memory_size_v2": "ICudaEngine.device_memory_size",
    "ICudaEngine.create_execution_context_without_device_memory": (
        "ExecutionContextAllocationStrategy.USER_MANAGED"
    ),
    "ExecutionContextAllocationStrategy.USER_MANAGED": (
        "ICudaEngine.create_execution_context_without_device_memory"
    ),
    "IExecutionContext.device_memory": "IExecutionContext.set_device_memory",
    "IExecutionContext.set_device_memory": "IExecutionContext.device_memory",
    "ILayer.precision": "NetworkDefinitionCreationFlag.STRONGLY_TYPED",
    "ILayer.set_output_type": "NetworkDefinitionCreationFlag.STRONGLY_TYPED",
    "BuilderFlag.PREFER_PRECISION_CONSTRAINTS": "NetworkDefinitionCreationFlag.STRONGLY_TYPED",
    "NetworkDefinitionCreationFlag.STRONGLY_TYPED": "BuilderFlag.FP16",
    "BuilderFlag.FP16": "NetworkDefinitionCreationFlag.STRONGLY_TYPED",
    **dict.fromkeys(
        [
            "IProgressMonitor",
            *(f"IProgressMonitor.{name}" for name in ("phase_start", "phase_finish")),
            *(f"IProgressMonitor.{name}" for name in ("step_complete", "__init__")),
        ],
        "",
    ),
    "IBuilderConfig.progress_monitor": "",
}
"""What may be absent if something else is there; "" where the code asks and does without."""

ONLY_WITH = {"ICudaEngine.create_execution_context": "ExecutionContextAllocationStrategy"}
"""Calls that are made only where something else is there."""


@dataclass(frozen=True, order=True)
class Use:
    """A name of TensorRT that the project uses.

    Attributes:
        name: Such as "ICudaEngine.num_io_tensors" or "MemoryPoolType.WORKSPACE".
        arguments: Positional arguments it is called with; -1 if it is not called.
        keywords: Keyword arguments it is called with.
    """

    name: str
    arguments: int = -1
    keywords: tuple[str, ...] = ()


def uses() -> list[Use]:
    """Read the names out of the sources."""
    found: set[Use] = set()
    for file in FILES:
        tree = ast.parse((ENGINES / file).read_text())
        calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and (name := _qualified(node, file)):
                found.add(_use(name, calls.get(id(node))))
            elif isinstance(node, ast.ClassDef):
                found.update(map(Use, _overrides(node)))
    asked = {name for pair in ALTERNATIVES.items() for name in pair if name}
    found |= {Use(name) for name in asked - {use.name for use in found}}
    named = {use.name.rsplit(".", 1)[0] for use in found if use.name.count(".") > 1}
    return sorted(use for use in found if use.name not in named)


def _overrides(node: ast.ClassDef) -> Iterator[str]:
    """Name the methods of TensorRT's own classes that a class replaces."""
    for base in node.bases:
        if isinstance(base, ast.Attribute) and getattr(base.value, "id", "") == "trt":
            methods = [part.name for part in node.body if isinstance(part, ast.FunctionDef)]
            yield from (f"{base.attr}.{name}" for name in methods if name != "__init__")


def _use(name: str, call: ast.Call | None) -> Use:
    if call is None:
        return Use(name)
    itself = int(name.endswith(".__init__"))
    unknown = any(isinstance(argument, ast.Starred) for argument in call.args)
    words = tuple(sorted(str(keyword.arg) for keyword in call.keywords))
    return Use(name, -1 if unknown else len(call.args) - itself, words)


def _qualified(node: ast.Attribute, file: str) -> str:
    """Give an attribute's TensorRT name; "" if it is none."""
    parts = [node.attr]
    value: ast.expr = node.value
    while isinstance(value, ast.Attribute):
        parts.append(value.attr)
        value = value.value
    parts.reverse()
    owner = parts[-2] if len(parts) > 1 else getattr(value, "id", "")
    if isinstance(value, ast.Name) and value.id == "trt":
        return ".".join(parts)
    if isinstance(value, ast.Call) and getattr(value.func, "id", "") == "library":
        return ".".join(parts)
    if owner in OBJECTS and owner not in OWN.get(file, ()):
        return f"{OBJECTS[owner]}.{parts[-1]}"
    if file != FILES[0]:
        return ""
    return next((f"{kind}.{node.attr}" for kind, names in CALLS.items() if node.attr in names), "")


def enumerators() -> set[str]:
    """List the enumerators that the sources name by a string, to ask for them."""
    texts: set[str] = set()
    for file in FILES[:2]:
        for node in ast.walk(ast.parse((ENGINES / file).read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts |= {node.value} if re.fullmatch(r"[A-Z][A-Z0-9_]{2,}", node.value) else set()
    return texts - {"INPUT"}


def find(trt: Any, name: str) -> Any:
    """Look a dotted name up; None if it is not there."""
    value = trt
    for part in name.split("."):
        value = getattr(value, part, None)
        if value is None:
            return None
    return value


def signature_problem(value: Any, use: Use) -> str:
    """Hold a call against the signatures in a docstring; empty if it fits or none is told."""
    if use.arguments < 0 or isinstance(value, type):
        return ""
    signatures = re.findall(r"^\s*(?:\d+\. )?\w+\((.*)\) -> ", value.__doc__ or "", re.MULTILINE)
    for text in signatures:
        names = [part.strip() for part in re.sub(r"\[[^][]*\]", "", text).split(", ") if part]
        given = [part for part in names if not part.startswith(("self", "arg0: tensorrt"))]
        required = [part for part in given if "=" not in part]
        known = {part.split(":")[0] for part in given}
        count = use.arguments + len(use.keywords)
        if set(use.keywords) <= known and len(required) <= count <= len(given):
            return ""
    return f"called with {use.arguments} and {use.keywords}, has {signatures}" if signatures else ""


def check(trt: Any) -> dict[str, Any]:
    """Look all names up in a TensorRT module and call what needs no GPU.

    Returns:
        Version, what was found of every name, and the problems (none if all is well).
    """
    names, problems = {}, []
    for use in uses():
        value = find(trt, use.name)
        other = ALTERNATIVES.get(use.name)
        names[use.name] = value is not None
        if value is None and not (other == "" or (other and find(trt, other) is not None)):
            problems.append(f"{use.name} is missing")
        elif find(trt, ONLY_WITH.get(use.name, "Builder")) is None:
            continue
        elif value is not None and (wrong := signature_problem(value, use)):
            problems.append(f"{use.name}: {wrong}")
    enums = {}
    for text in sorted(enumerators()):
        owners = [n for n in dir(trt) if hasattr(getattr(trt, n), "__members__")]
        enums[text] = [n for n in owners if text in getattr(trt, n).__members__]
    problems += [f"calling failed: {problem}" for problem in _call(trt)]
    return {
        "tensorrt": trt.__version__,
        "python": "{}.{}".format(*sys.version_info),
        "names": names,
        "enumerators": enums,
        "problems": problems,
    }


def _call(trt: Any) -> Iterator[str]:
    """Call what needs no GPU, with the real module under the name `tensorrt`."""
    sys.modules["tensorrt"] = trt
    from realtime_ssd_engines.tensorrt import compat as trt_compat
    from realtime_ssd_engines.tensorrt import library as trt_library

    settings: list[str] = []
    config = SimpleNamespace(
        set_tactic_sources=lambda sources: settings.append(f"tactics {sources}"),
        set_preview_feature=lambda feature, on: settings.append(f"{feature} {on}"),
        set_flag=lambda flag: settings.append(str(flag)),
        clear_flag=lambda flag: settings.append(str(flag)),
    )
    empty = SimpleNamespace(num_layers=0)

    def precisions() -> None:
        for fp16, int8 in ((False, False), (True, False), (True, True)):
            trt_compat.set_precision(empty, config, fp16=fp16, int8=int8)

    works = {
        "version": trt_library.version,
        "logger": lambda: _log(trt, trt_library),
        "network flags": lambda: trt_compat._network_flags(trt),
        "tactics": lambda: trt_compat._own_kernels_only(trt, config),
        "precisions": precisions,
        "progress": lambda: _progress(trt_library),
        "profiler": lambda: trt_library.layer_times(SimpleNamespace(), lambda: None, 1),
        "builder without a GPU": lambda: _no_gpu(trt_compat),
    }
    for name, work in works.items():
        try:
            work()
        except Exception as error:  # every failure is a finding
            yield f"{name}: {type(error).__name__}: {error}"


def _log(trt: Any, trt_library: Any) -> None:
    heard = trt_library.messages()
    for severity in (trt.ILogger.Severity.INFO, trt.ILogger.Severity.ERROR):
        heard.logger.log(severity, f"{severity} for a try")
    assert heard.errors == [f"{trt.ILogger.Severity.ERROR} for a try"]


def _progress(trt_library: Any) -> None:
    told: list[float] = []
    config = SimpleNamespace()
    if trt_library.watch(config, told.append):
        monitor = config.progress_monitor
        monitor.phase_start("build", None, 4)
        monitor.phase_start("inner", "build", 10)
        assert monitor.step_complete("inner", 3)
        assert monitor.step_complete("build", 1)
        monitor.phase_finish("build")
        assert told == [0.5]


def _no_gpu(trt_compat: Any) -> None:
    """Without a GPU there is no builder: the answer must be our sentence."""
    from realtime_ssd.core.errors import ModelError
    from realtime_ssd.core.gpu import find_gpus

    if find_gpus():
        trt_compat.builder_parts(1 << 20)
        return
    said = ""
    try:
        trt_compat.builder_parts(1 << 20)
    except ModelError as error:
        said = str(error)
    assert "cannot use this GPU" in said, said or "a builder came up without a GPU"


def check_wheel(wheel: Path) -> dict[str, Any]:
    """Unpack a wheel and check it in a process of its own."""
    with tempfile.TemporaryDirectory() as place:
        package, folders = unpack(wheel, Path(place))
        libraries = ":".join(map(str, folders))
        paths = ":".join([place, str(ROOT), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "LD_LIBRARY_PATH": libraries, "PYTHONPATH": paths}
        command = [sys.executable, "-m", "benchmarks.gpu.trt_bindings", "--here", package]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, cwd=ROOT
        )
    if done.returncode not in (0, 1) or not done.stdout:
        raise SystemExit(f"{wheel.name}: {done.stderr.strip() or done.returncode}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {"package": re.sub(r"-cp.*", "", wheel.name), **found}


def main() -> int:
    """Check, print what was found, and give 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheels", nargs="*", type=Path)
    parser.add_argument("--here", metavar="PACKAGE", nargs="?", const="tensorrt")
    parser.add_argument("--output", type=Path, default=RESULTS)
    given = parser.parse_args()
    if given.here:
        found = check(__import__(given.here))
        print(json.dumps(found))
        return int(bool(found["problems"]))
    results = [check_wheel(wheel) for wheel in given.wheels]
    results.sort(key=lambda result: [int(part) for part in result["tensorrt"].split(".")])
    for result in results:
        there = sum(result["names"].values())
        print(f"{result['tensorrt']:<12} {there} of {len(result['names'])} names")
        print("".join(f"  {problem}\n" for problem in result["problems"]), end="")
    given.output.write_text(json.dumps({"bindings": results}, indent=1) + "\n")
    return int(any(result["problems"] for result in results))


if __name__ == "__main__":
    sys.exit(main())
