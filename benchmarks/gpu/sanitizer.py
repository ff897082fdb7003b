"""Runs the kernel checks under NVIDIA compute-sanitizer."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.gpu.context import GpuContext
from benchmarks.gpu.report_rows import Row, SkippedError

__all__ = ["check_sanitizer"]

SECTION = "sanitizer"
TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
TIMEOUT = 150
FOLDERS = ("/usr/local/cuda/bin", "/usr/local/cuda/compute-sanitizer")
ERROR_STATUS = 97
"""Exit status of compute-sanitizer when it finds errors."""


def check_sanitizer(context: GpuContext) -> None:
    """Run the quick kernel checks under each tool."""
    for tool in TOOLS:
        with context.report.guard(SECTION, tool):
            context.require_gpu()
            program = _program()
            context.report.check_time()
            _run(context, program, tool)


def _program() -> str:
    for path in (None, *FOLDERS):
        if program := shutil.which("compute-sanitizer", path=path):
            return program
    raise SkippedError("compute-sanitizer is not installed")


def _run(context: GpuContext, program: str, tool: str) -> None:
    output = context.workdir / f"{tool}.json"
    command = [
        program,
        f"--tool={tool}",
        f"--error-exitcode={ERROR_STATUS}",
        "--target-processes=all",
    ]
    command += [sys.executable, "-m", "benchmarks.gpu", "--only", "kernels", "--quick"]
    command += ["--output", str(output), "--data", str(context.data), "--seed", "1"]
    root = Path(__file__).resolve().parents[2]
    try:
        result = subprocess.run(
            command, cwd=root, capture_output=True, text=True, timeout=TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise SkippedError(f"the time limit of {TIMEOUT} s was exceeded") from error
    lines = [line for line in result.stdout.splitlines() if line.startswith("=========")]
    last = lines[-1].strip("= ") if lines else "no output"
    if result.returncode == 0:
        context.report.add(Row(SECTION, tool, "ok", note=last))
    elif "not supported" in result.stdout.lower() and result.returncode != ERROR_STATUS:
        raise SkippedError(f"compute-sanitizer does not support this GPU ({last})")
    else:
        reason = next((line.strip("= ") for line in lines if "Error" in line), last)
        context.report.add(Row(SECTION, tool, f"failed: {reason} (status {result.returncode})"))
