"""Sections of the benchmark, and the checks that each consists of."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.gpu.context import GpuContext

__all__ = ["GPU_LOST", "SECTIONS", "Check", "Section", "SectionRequest"]

GPU_LOST = 75
"""Exit status of a section's process after an error that makes each of its later calls fail."""


@dataclass(frozen=True)
class Check:
    """One step of a section, which adds one or more rows to the report.

    Attributes:
        name: Name in the report.
        run: Adds the rows.
        needs_gpu: Whether it is skipped without a GPU.
    """

    name: str
    run: Callable[[], None]
    needs_gpu: bool = True


@dataclass(frozen=True)
class Section:
    """A part of the benchmark that runs in a process of its own.

    Attributes:
        module: Module whose function `checks` returns the checks. It is imported in that process
            only, because it may need packages that are not installed.
        limit: Time limit in seconds.
    """

    module: str
    limit: float

    def checks(self, context: GpuContext) -> list[Check]:
        """Return the checks.

        Raises:
            ModuleNotFoundError: If a package that the section needs is not installed.
        """
        result: list[Check] = import_module(self.module).checks(context)
        return result


SECTIONS = {
    "machine": Section("benchmarks.gpu.environment", 60),
    "kernels": Section("benchmarks.gpu.kernels", 150),
    "sanitizer": Section("benchmarks.gpu.sanitizer", 250),
    "frame": Section("benchmarks.gpu.frame", 120),
    "nvdec": Section("benchmarks.gpu.decoding", 60),
    "speed": Section("benchmarks.gpu.speed", 120),
    "models": Section("benchmarks.gpu.model_times", 300),
    "engines": Section("benchmarks.gpu.engine", 900),
}
"""All sections, the most important first."""


@dataclass(frozen=True)
class SectionRequest:
    """What the process of a section is to do, as passed on its command line.

    Attributes:
        section: One of `SECTIONS`.
        seed: Seed of random heads and images.
        data: Data folder; it may not exist.
        workdir: Folder for models, engines and kernels, which all sections share.
        logs: Folder of log files.
        quick: Whether to run with few repetitions.
        batches: Batch sizes to time.
        names: Models to time and build; all of them if empty.
        models: Folder of networks without weights (see `benchmarks.gpu.models`), or "".
        torch_compile: Whether to time `torch.compile` too.
        done: Names of checks to omit, because an earlier process has run them.
        module: Module to run as the process.
    """

    section: str
    seed: int
    data: str
    workdir: str
    logs: str
    quick: bool = False
    batches: tuple[int, ...] = (1, 8, 32)
    names: tuple[str, ...] = ()
    models: str = ""
    torch_compile: bool = False
    done: tuple[str, ...] = ()
    module: str = "benchmarks.gpu.section"

    def to_json(self) -> str:
        """Return the request as one argument."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> SectionRequest:
        """Parse the argument."""
        request = cls(**json.loads(text))
        return replace(
            request,
            batches=tuple(request.batches),
            names=tuple(request.names),
            done=tuple(request.done),
        )
