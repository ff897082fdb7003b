"""Checks that all TensorRT names that the project uses exist in TensorRT 8.6, 10 and 11.

NVIDIA's bindings can be imported on a machine without a GPU once the libraries they link to exist;
missing ones are replaced by stubs (see `trt_standins`). Each attribute that the project takes from
TensorRT's module and objects is looked up in the real bindings, keyword and argument counts are
compared with the signatures, and functions that need no GPU are called.

    python -m benchmarks.gpu.trt_bindings WHEEL... [--output FILE]   unpack and check wheels
    python -m benchmarks.gpu.trt_bindings --here                     check the installed TensorRT

Wheels must match the version of the running Python, which must have numpy.
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
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmarks.gpu.trt_standins import unpack

__all__ = ["ALTERNATIVES", "Use", "check", "uses"]

ROOT = Path(__file__).resolve().parents[2]
ENGINES = ROOT / "engines" / "realtime_ssd_engines" / "tensorrt"
FILES = ("compat.py", "compat_runtime.py", "library.py", "network.py", "toolchain.py")
RESULTS = Path(__file__).parents[1] / "results" / "tensorrt-bindings.json"

OBJECTS = {
    "builder": "Builder",
    "network": "INetworkDefinition",
    "config": "IBuilderConfig",
    "parser": "OnnxParser",
    "profile": "IOptimizationProfile",
    "layer": "ILayer",
    "timing_cache": "ITimingCache",
    "engine": "ICudaEngine",
    "context": "IExecutionContext",
    "_profiled_context": "IExecutionContext",
    "formats": "LayerInformationFormat",
    "flags": "BuilderFlag",
    "strategies": "ExecutionContextAllocationStrategy",
    "specializations": "DynamicShapesKernelSpecializationStrategy",
    "runtime_config": "IRuntimeConfig",
    "runtime_cache": "IRuntimeCache",
}
"""TensorRT types of variables and attributes by name."""

PROJECT_NAMES = {"network.py": {"network", "runtime_cache"}, "toolchain.py": {"network"}}
"""Names in `OBJECTS` that refer to objects of the project instead, by file."""

CALLS = {
    "Runtime": {"deserialize_cuda_engine"},
    "EngineInspector": {"get_engine_information"},
    "ITensor": {"dtype"},
    "ParserError": {"desc", "node_name", "node_operator"},
}
"""Attributes of objects that are not assigned to a variable."""

ALTERNATIVES = {
    "ExecutionContextAllocationStrategy": (
        "ICudaEngine.create_execution_context_without_device_memory"
    ),
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
    **dict.fromkeys(  # TensorRT-RTX only
        [
            "ComputeCapability",
            "ComputeCapability.__members__",
            "IBuilderConfig.num_compute_capabilities",
            "IBuilderConfig.set_compute_capability",
            "CudaGraphStrategy",
            "CudaGraphStrategy.DISABLED",
            "DynamicShapesKernelSpecializationStrategy",
            "DynamicShapesKernelSpecializationStrategy.EAGER",
            "ICudaEngine.create_runtime_config",
            *(f"IRuntimeCache.{name}" for name in ("deserialize", "serialize")),
            *(f"IRuntimeConfig.{name}" for name in ("create_runtime_cache", "get_runtime_cache")),
            *(f"IRuntimeConfig.{name}" for name in ("set_runtime_cache", "cuda_graph_strategy")),
            "IRuntimeConfig.dynamic_shapes_kernel_specialization_strategy",
            "IRuntimeConfig.set_execution_context_allocation_strategy",
        ],
        "",
    ),
    **dict.fromkeys(["ParserError.node_name", "ParserError.node_operator"], ""),
}
"""Names that may be absent if the alternative exists; "" if the code works without them."""

ONLY_WITH = {"ICudaEngine.create_execution_context": "ExecutionContextAllocationStrategy"}
"""Names that are only used if another name exists."""


@dataclass(frozen=True, order=True)
class Use:
    """Use of a TensorRT name in the project.

    Attributes:
        name: Such as "ICudaEngine.num_io_tensors" or "MemoryPoolType.WORKSPACE".
        arguments: Number of positional arguments; -1 if it is not called.
        keywords: Names of the keyword arguments.
    """

    name: str
    arguments: int = -1
    keywords: tuple[str, ...] = ()


def uses() -> list[Use]:
    """Return the uses of TensorRT names in the sources."""
    found: set[Use] = set()
    for file in FILES:
        tree = ast.parse((ENGINES / file).read_text())
        calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and (name := _qualified(node, file)):
                found.add(_use(name, calls.get(id(node))))
            elif isinstance(node, ast.ClassDef):
                found.update(map(Use, _overrides(node)))
    queried = {name for pair in ALTERNATIVES.items() for name in pair if name}
    found |= {Use(name) for name in queried - {use.name for use in found}}
    prefixes = {use.name.rsplit(".", 1)[0] for use in found if use.name.count(".") > 1}
    return sorted(use for use in found if use.name not in prefixes)


def _overrides(node: ast.ClassDef) -> Iterator[str]:
    """Yield the methods of TensorRT classes that a class overrides."""
    for base in node.bases:
        if isinstance(base, ast.Attribute) and getattr(base.value, "id", "") == "trt":
            methods = [part.name for part in node.body if isinstance(part, ast.FunctionDef)]
            yield from (f"{base.attr}.{name}" for name in methods if name != "__init__")


def _use(name: str, call: ast.Call | None) -> Use:
    if call is None:
        return Use(name)
    self_argument = int(name.endswith(".__init__"))
    has_star = any(isinstance(argument, ast.Starred) for argument in call.args)
    keywords = tuple(sorted(str(keyword.arg) for keyword in call.keywords))
    return Use(name, -1 if has_star else len(call.args) - self_argument, keywords)


def _qualified(node: ast.Attribute, file: str) -> str:
    """Return the TensorRT name of an attribute, or "" if it is not one."""
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
    if owner in OBJECTS and owner not in PROJECT_NAMES.get(file, ()):
        return f"{OBJECTS[owner]}.{parts[-1]}"
    if file not in FILES[:2]:
        return ""
    return next((f"{kind}.{node.attr}" for kind, names in CALLS.items() if node.attr in names), "")


def enumerators() -> set[str]:
    """Return the enumerators that the sources look up by string."""
    texts: set[str] = set()
    for file in FILES[:3]:
        for node in ast.walk(ast.parse((ENGINES / file).read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts |= {node.value} if re.fullmatch(r"[A-Z][A-Z0-9_]{2,}", node.value) else set()
    return texts - {"INPUT"}


def find(trt: Any, name: str) -> Any:
    """Return the object with a dotted name, or None."""
    value = trt
    for part in name.split("."):
        value = getattr(value, part, None)
        if value is None:
            return None
    return value


def signature_problem(value: Any, use: Use) -> str:
    """Return how a call differs from the signatures in the docstring, or ""."""
    if use.arguments < 0 or isinstance(value, type):
        return ""
    signatures = re.findall(r"^\s*(?:\d+\. )?\w+\((.*)\) -> ", value.__doc__ or "", re.MULTILINE)
    for text in signatures:
        names = [part.strip() for part in re.sub(r"\[[^][]*\]", "", text).split(", ") if part]
        parameters = [part for part in names if not part.startswith(("self", "arg0: tensorrt"))]
        required = [part for part in parameters if "=" not in part]
        known = {part.split(":")[0] for part in parameters}
        count = use.arguments + len(use.keywords)
        if set(use.keywords) <= known and len(required) <= count <= len(parameters):
            return ""
    return f"called with {use.arguments} and {use.keywords}, has {signatures}" if signatures else ""


def check(trt: Any) -> dict[str, Any]:
    """Look up all names in a TensorRT module and call the functions that need no GPU.

    Returns:
        Version, existence of each name, and a list of problems.
    """
    names, problems = {}, []
    for use in uses():
        value = find(trt, use.name)
        alternative = ALTERNATIVES.get(use.name)
        names[use.name] = value is not None
        if value is None and not _is_optional(trt, alternative):
            problems.append(f"{use.name} is missing")
        elif find(trt, ONLY_WITH.get(use.name, "Builder")) is None:
            continue
        elif value is not None and (problem := signature_problem(value, use)):
            problems.append(f"{use.name}: {problem}")
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


def _is_optional(trt: Any, alternative: str | None) -> bool:
    return alternative == "" or (alternative is not None and find(trt, alternative) is not None)


def _call(trt: Any) -> Iterator[str]:
    """Call functions that need no GPU, with the real module imported as `tensorrt`."""
    sys.modules["tensorrt"] = trt
    from realtime_ssd_engines.tensorrt import compat, library

    settings: list[str] = []
    config = SimpleNamespace(
        set_tactic_sources=lambda sources: settings.append(f"tactics {sources}"),
        set_preview_feature=lambda feature, on: settings.append(f"{feature} {on}"),
        set_flag=lambda flag: settings.append(str(flag)),
        clear_flag=lambda flag: settings.append(str(flag)),
    )
    empty_network = SimpleNamespace(num_layers=0)

    def precisions() -> None:
        for fp16, int8 in ((False, False), (True, False), (True, True)):
            compat.set_precision(empty_network, config, fp16=fp16, int8=int8)

    calls: dict[str, Callable[[], object]] = {
        "version": library.version,
        "logger": lambda: _log(trt, library),
        "network flags": lambda: compat._network_flags(trt),
        "tactics": lambda: compat._restrict_tactics(trt, config),
        "precisions": precisions,
        "progress": lambda: _progress(library),
        "profiler": lambda: library.profile_layers(SimpleNamespace(), lambda: None, 1),
        "builder without a GPU": lambda: _no_gpu(compat),
    }
    for name, call in calls.items():
        try:
            call()
        except Exception as error:  # every failure is reported
            yield f"{name}: {type(error).__name__}: {error}"


def _log(trt: Any, library: Any) -> None:
    messages = library.message_log()
    for severity in (trt.ILogger.Severity.INFO, trt.ILogger.Severity.ERROR):
        messages.logger.log(severity, f"test: {severity}")
    assert messages.errors == [f"test: {trt.ILogger.Severity.ERROR}"]


def _progress(library: Any) -> None:
    reported: list[float] = []
    config = SimpleNamespace()
    if library.monitor_progress(config, reported.append):
        monitor = config.progress_monitor
        monitor.phase_start("build", None, 4)
        monitor.phase_start("inner", "build", 10)
        assert monitor.step_complete("inner", 3)
        assert monitor.step_complete("build", 1)
        monitor.phase_finish("build")
        assert reported == [0.5]


def _no_gpu(compat: Any) -> None:
    """Without a GPU, creating a builder must raise the project's error."""
    from realtime_ssd.core.errors import ModelError
    from realtime_ssd.core.gpu import find_gpus

    if find_gpus():
        compat.create_builder(1 << 20)
        return
    message = ""
    try:
        compat.create_builder(1 << 20)
    except ModelError as error:
        message = str(error)
    assert "cannot use this GPU" in message, message or "a builder was created without a GPU"


def check_wheel(wheel: Path) -> dict[str, Any]:
    """Unpack a wheel and check it in a separate process."""
    with tempfile.TemporaryDirectory() as folder:
        package, folders = unpack(wheel, Path(folder))
        libraries = ":".join(map(str, folders))
        paths = ":".join([folder, str(ROOT), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "LD_LIBRARY_PATH": libraries, "PYTHONPATH": paths}
        command = [sys.executable, "-m", "benchmarks.gpu.trt_bindings", "--here", package]
        result = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, cwd=ROOT
        )
    if result.returncode not in (0, 1) or not result.stdout:
        raise SystemExit(f"{wheel.name}: {result.stderr.strip() or result.returncode}")
    found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return {"package": re.sub(r"-cp.*", "", wheel.name), **found}


def main() -> int:
    """Run the checks, print the results and return 1 if there are problems."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheels", nargs="*", type=Path)
    parser.add_argument("--here", metavar="PACKAGE", nargs="?", const="tensorrt")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.here:
        found = check(__import__(options.here))
        print(json.dumps(found))
        return int(bool(found["problems"]))
    results = [check_wheel(wheel) for wheel in options.wheels]
    results.sort(key=lambda result: [int(part) for part in result["tensorrt"].split(".")])
    for result in results:
        existing = sum(result["names"].values())
        print(f"{result['tensorrt']:<12} {existing} of {len(result['names'])} names")
        print("".join(f"  {problem}\n" for problem in result["problems"]), end="")
    options.output.write_text(json.dumps({"bindings": results}, indent=1) + "\n")
    return int(any(result["problems"] for result in results))


if __name__ == "__main__":
    sys.exit(main())
