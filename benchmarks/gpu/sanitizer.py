"""NVIDIA's compute-sanitizer over the kernel checks."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.gpu.context import Room
from benchmarks.gpu.rows import Row, SkippedError

__all__ = ["check_sanitizer"]

SECTION = "sanitizer"
TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
SECONDS = 150
PLACES = ("/usr/local/cuda/bin", "/usr/local/cuda/compute-sanitizer")
MARK = 97
"""Exit status that only the sanitizer gives."""


def check_sanitizer(room: Room) -> None:
    """Run the quick kernel checks under every tool."""
    for tool in TOOLS:
        with room.report.guard(SECTION, tool):
            room.need_gpu()
            program = _program()
            room.report.check_time()
            _run(room, program, tool)


def _program() -> str:
    found = shutil.which("compute-sanitizer")
    for place in PLACES:
        found = found or shutil.which("compute-sanitizer", path=place)
    if found is None:
        raise SkippedError("compute-sanitizer is not installed")
    return found


def _run(room: Room, program: str, tool: str) -> None:
    output = room.place / f"{tool}.json"
    command = [program, f"--tool={tool}", f"--error-exitcode={MARK}", "--target-processes=all"]
    command += [sys.executable, "-m", "benchmarks.gpu", "--only", "kernels", "--quick"]
    command += ["--output", str(output), "--data", str(room.data), "--seed", "1"]
    root = Path(__file__).resolve().parents[2]
    try:
        done = subprocess.run(
            command, cwd=root, capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise SkippedError(f"it took longer than {SECONDS} s") from error
    lines = [line for line in done.stdout.splitlines() if line.startswith("=========")]
    last = lines[-1].strip("= ") if lines else "it said nothing"
    if done.returncode == 0:
        room.report.add(Row(SECTION, tool, "ok", note=last))
    elif "not supported" in done.stdout.lower() and done.returncode != MARK:
        raise SkippedError(f"compute-sanitizer refuses this GPU ({last})")
    else:
        reason = next((line.strip("= ") for line in lines if "Error" in line), last)
        room.report.add(Row(SECTION, tool, f"failed: {reason} (status {done.returncode})"))
