"""Runs the kernel checks under NVIDIA compute-sanitizer."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from benchmarks.gpu.checks import Check
from benchmarks.gpu.context import GpuContext
from benchmarks.gpu.report_rows import Row, SkippedError, count_rows
from benchmarks.gpu.section_process import run_in_process

__all__ = ["checks", "sanitizer_errors"]

SECTION = "sanitizer"
TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
LIMIT = 60
"""Seconds per tool: together less than the limit of the section."""

FOLDERS = ("/usr/local/cuda/bin", "/usr/local/cuda/compute-sanitizer")
OPTIONS = ("--quiet", "--print-limit=0", "--target-processes=all")
_LOOK_UP = re.compile(r"on CUDA API call to cuGetProcAddress")
"""Bindings look up functions that an older driver does not have, and handle their absence."""

_NO_ERROR = re.compile(
    r"COMPUTE-SANITIZER|ERROR SUMMARY|LEAK SUMMARY|RACECHECK SUMMARY|Target application"
)


def checks(context: GpuContext) -> list[Check]:
    """Run the quick kernel checks under each tool."""
    return [Check(tool, partial(_run, context, tool)) for tool in TOOLS]


def _program() -> str:
    folders = list(FOLDERS)
    package = find_spec("nvidia")
    for location in package.submodule_search_locations or () if package else ():
        folders += map(str, Path(location).glob("*/compute-sanitizer"))
    for path in (None, *folders):
        if program := shutil.which("compute-sanitizer", path=path):
            return program
    raise SkippedError("compute-sanitizer is not installed")


def _run(context: GpuContext, tool: str) -> None:
    """Run the section `kernels` under a tool, with its log next to those of the sections."""
    logs = Path(context.request.logs)
    report, rows = logs / f"sanitizer-{tool}.log", list[Row]()
    report.unlink(missing_ok=True)
    command = [_program(), f"--tool={tool}", *OPTIONS, "--log-file", str(report)]
    request = replace(context.request, section="kernels", quick=True, data="", done=())
    output = logs / f"sanitizer-{tool}-output.log"
    run_in_process(request, LIMIT, rows.append, log=output, prefix=command)
    text = report.read_text(errors="replace") if report.exists() else ""
    if "device not supported" in text.lower():
        raise SkippedError("compute-sanitizer does not support this GPU")
    errors, counts = sanitizer_errors(text), count_rows(rows)
    note = ", ".join(f"{count} checks {status}" for status, count in sorted(counts.items()))
    if not counts.get("ok", 0) + counts.get("met", 0):
        errors.append("no check passed under it")
    message = f"{len(errors)} errors, the first: {errors[0]}; see {report.name}" if errors else ""
    context.report.check(SECTION, tool, not errors, message, note)


def sanitizer_errors(text: str) -> list[str]:
    """Return the first line of each error in a report, without look-ups of absent functions.

    Args:
        text: Output of compute-sanitizer. Its lines begin with "=========", and an error consists
            of a line and further ones with a deeper indentation.
    """
    errors = []
    for line in text.splitlines():
        content = line.removeprefix("========= ")
        is_first = content != line and content.strip() and not content.startswith(" ")
        if is_first and not _NO_ERROR.match(content) and not _LOOK_UP.search(content):
            errors.append(content)
    return errors
