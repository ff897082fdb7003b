"""Runs the checks of one section; started by `benchmarks.gpu.section_process`.

    python -m benchmarks.gpu.section JSON

The argument is a `SectionRequest`. One JSON object per line is written to the original standard
output: the names of all checks, the begin and end of each, and rows. Everything that libraries
print goes to standard error, which is the section's log.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from benchmarks.gpu.checks import GPU_LOST, SECTIONS, Check, SectionRequest
from benchmarks.gpu.context import GpuContext
from benchmarks.gpu.report_rows import Report, SkippedError

__all__ = ["main", "run_section"]

Send = Callable[[str, Any], None]


def main(arguments: Sequence[str]) -> int:
    """Run the section that is described by the argument; return the exit status."""
    request = SectionRequest.from_json(arguments[0])
    messages = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def send(kind: str, value: Any) -> None:
        messages.write(json.dumps({kind: value}) + "\n")
        messages.flush()

    with messages:
        return run_section(request, send)


def run_section(request: SectionRequest, send: Send) -> int:
    """Run the checks of a section, except those that are done.

    Args:
        request: What to run.
        send: Called with the kind and the content of each message.

    Returns:
        0, or `GPU_LOST` if the remaining checks need a new process.
    """
    report = Report(lambda row: send("row", asdict(row)))
    context = GpuContext(report, request)
    checks: list[Check] = []
    with report.guard(request.section, "whole section"), _logged_errors():
        checks = SECTIONS[request.section].checks(context)
    send("plan", [check.name for check in checks])
    for check in checks:
        if check.name in request.done:
            continue
        send("begin", check.name)
        rows = len(report.rows)
        with report.guard(request.section, check.name), _logged_errors():
            if check.needs_gpu:
                context.require_gpu()
            check.run()
        send("end", check.name)
        failed = any(row.status.startswith("failed") for row in report.rows[rows:])
        if failed and not context.gpu_responds():
            return GPU_LOST
    return 0


@contextmanager
def _logged_errors() -> Iterator[None]:
    """Write the traceback of an exception to the log."""
    try:
        yield
    except SkippedError:
        raise
    except Exception:
        traceback.print_exc()
        raise


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
