"""A toolchain that needs no GPU: its "engines" are ONNX files, run by ONNX Runtime."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from realtime_ssd_engines.onnx.verify import Floats, Heads, onnx_runner
from realtime_ssd_engines.tensorrt.build import Engine, EngineOptions, obtain
from realtime_ssd_engines.tensorrt.toolchain import Built, Job, Machine, OpenEngine, Progress

from realtime_ssd.core.spec import ModelSpec, read_spec
from tests.tiny import bright_cell

MACHINE = Machine("ONNX Runtime on a CPU", "0.0", "1.0", "none")


class OnnxToolchain:
    """Builds by copying; keeps the jobs it was given.

    Args:
        log: File that gets a line for every build, by any process.
        change: Applied to the heads of every run, to play an engine that is wrong.
    """

    def __init__(
        self,
        log: Path | None = None,
        machine: Machine = MACHINE,
        change: Callable[[Heads], Heads] | None = None,
    ) -> None:
        self.log, self._machine, self.change = log, machine, change
        self.jobs: list[Job] = []

    def machine(self) -> Machine:
        return self._machine

    def build(self, job: Job, say: Progress) -> Built:
        self.jobs.append(job)
        if self.log is not None:
            with self.log.open("a") as file:
                file.write(f"{os.getpid()}\n")
        return Built(job.model.read_bytes(), job.timings + b"timed;")

    def open(self, plan: bytes, spec: ModelSpec) -> OpenEngine:
        return OnnxEngine(plan, spec, self.change)


class OnnxEngine:
    def __init__(
        self, plan: bytes, spec: ModelSpec, change: Callable[[Heads], Heads] | None
    ) -> None:
        self._run, self._change = onnx_runner(plan, spec), change

    def __call__(self, tensor: Floats) -> Heads:
        heads = self._run(tensor)
        return self._change(heads) if self._change else heads

    def layers(self) -> str:
        return json.dumps({"Layers": [{"Name": "all", "LayerType": "OnnxRuntime"}]})

    def times(self, tensor: Floats, rounds: int) -> dict[str, float]:
        begun = time.perf_counter()
        for _ in range(rounds):
            self(tensor)
        return {"all": (time.perf_counter() - begun) * 1000 / rounds}

    def __enter__(self) -> OpenEngine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None


def get(model: Path, cache: Path, tools: OnnxToolchain | None = None, **options: object) -> Engine:
    """Get the engine of a model from a cache of its own."""
    given = EngineOptions(cache=cache, **options)  # type: ignore[arg-type]
    frames = [bright_cell((1, 2)), bright_cell((3, 0))]
    return obtain(model, read_spec(model), given, None, frames, tools or OnnxToolchain())


def get_in_process(model: Path, cache: Path, log: Path) -> str:
    """The same for another process; gives the sha of what it got."""
    import hashlib

    return hashlib.sha256(get(model, cache, OnnxToolchain(log)).plan).hexdigest()
