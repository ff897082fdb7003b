"""Toolchain that needs no GPU: its "engines" are ONNX files, executed by ONNX Runtime."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from realtime_ssd_engines.onnx.verify import Floats, Heads, onnx_runner
from realtime_ssd_engines.tensorrt.engine_builder import Engine, EngineOptions, get_or_build_engine
from realtime_ssd_engines.tensorrt.toolchain import (
    BuildRequest,
    BuildResult,
    LoadedEngine,
    ProgressCallback,
    Target,
)

from realtime_ssd.core.closeable import Closeable
from realtime_ssd.core.frames import Image
from realtime_ssd.core.spec import ModelSpec, read_spec
from tests.tiny import bright_cell

TARGET = Target("ONNX Runtime on a CPU", "0.0", "1.0")
FRAMES = (bright_cell((1, 2)), bright_cell((3, 0)))


class OnnxToolchain:
    """Copies the ONNX file instead of building an engine, and records the requests.

    Args:
        log: File to which each build in any process appends a line.
        target: Target of the engines.
        modify: Applied to the outputs of each run, to simulate a faulty engine.
        gpu: Name of the GPU; without a name, engines cannot run.
    """

    def __init__(
        self,
        log: Path | None = None,
        target: Target = TARGET,
        modify: Callable[[Heads], Heads] | None = None,
        gpu: str = TARGET.gpu,
    ) -> None:
        self.log, self._target, self.modify = log, target, modify
        self.gpu, self.loads = gpu, 0
        self.requests: list[BuildRequest] = []

    def target(self) -> Target:
        return self._target

    def can_run(self) -> bool:
        return bool(self.gpu)

    def gpu_name(self) -> str:
        return self.gpu

    def build(self, request: BuildRequest, progress: ProgressCallback) -> BuildResult:
        self.requests.append(request)
        if self.log is not None:
            with self.log.open("a") as file:
                file.write(f"{os.getpid()}\n")
        return BuildResult(request.model.read_bytes(), request.timing_cache + b"timed;")

    def load(self, plan: bytes, spec: ModelSpec) -> LoadedEngine:
        self.loads += 1
        return OnnxEngine(plan, spec, self.modify)


class OnnxEngine(Closeable):
    def __init__(
        self, plan: bytes, spec: ModelSpec, modify: Callable[[Heads], Heads] | None
    ) -> None:
        self._run, self._modify = onnx_runner(plan, spec), modify

    def __call__(self, tensor: Floats) -> Heads:
        heads = self._run(tensor)
        return self._modify(heads) if self._modify else heads

    def layers(self) -> str:
        return json.dumps({"Layers": [{"Name": "all", "LayerType": "OnnxRuntime"}]})

    def layer_times(self, tensor: Floats, rounds: int) -> dict[str, float]:
        begin = time.perf_counter()
        for _ in range(rounds):
            self(tensor)
        return {"all": (time.perf_counter() - begin) * 1000 / rounds}

    def close(self) -> None:
        return


def build_engine(
    model: Path,
    cache: Path,
    toolchain: OnnxToolchain | None = None,
    frames: Sequence[Image] | None = FRAMES,
    **options: Any,
) -> Engine:
    """Return the engine of a model from a cache folder, or build it."""
    engine_options = EngineOptions(cache=cache, **options)
    toolchain = toolchain or OnnxToolchain()
    return get_or_build_engine(model, read_spec(model), engine_options, None, frames, toolchain)


def build_and_hash(model: Path, cache: Path, log: Path) -> str:
    """Return the checksum of the engine; for use in other processes."""
    return hashlib.sha256(build_engine(model, cache, OnnxToolchain(log)).plan).hexdigest()
