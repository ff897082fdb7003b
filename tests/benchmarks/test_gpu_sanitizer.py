"""Reports of compute-sanitizer."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks.gpu.checks import SectionRequest
from benchmarks.gpu.context import GpuContext
from benchmarks.gpu.report_rows import Report, Row
from benchmarks.gpu.sanitizer import _run, sanitizer_errors

CLEAN = """\
========= COMPUTE-SANITIZER
========= Program hit CUDA_ERROR_NOT_FOUND (error 500) due to "named symbol not found" on \
CUDA API call to cuGetProcAddress_v2.
=========     Saved host backtrace up to driver entry point at error
=========     Host Frame: [0x4f2f3] in libcuda.so.1
=========
========= Target application returned an error
========= ERROR SUMMARY: 1 error
========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)
"""
FAULTS = (
    "Invalid __global__ write of size 4 bytes",
    "Error: Race reported between Write access at 0x90 in detect.cu:120",
    "Warning: Race reported between Read access at 0x90 in largest.cuh:80",
    "Uninitialized __global__ memory read of size 8 bytes",
    "Barrier error detected. Divergent thread(s) in block.",
    "Program hit CUDA_ERROR_INVALID_VALUE (error 1) on CUDA API call to cuMemcpyHtoDAsync_v2.",
)


def test_look_ups_of_absent_functions_are_not_errors() -> None:
    assert sanitizer_errors(CLEAN) == []


def test_every_kind_of_error_is_found() -> None:
    details = "=========     at ssd_select+0x170 in detect.cu:88\n=========\n"
    text = CLEAN + "".join(f"========= {fault}\n{details}" for fault in FAULTS)
    assert sanitizer_errors(text) == list(FAULTS)
    assert sanitizer_errors("output of the program\n" + text) == list(FAULTS)


@pytest.mark.parametrize(
    ("report", "status"),
    [
        (CLEAN, "ok"),
        (
            f"========= {FAULTS[0]}\n{CLEAN}",
            f"failed: 1 errors, the first: {FAULTS[0]}; see sanitizer-memcheck.log",
        ),
    ],
)
def test_the_kernel_checks_run_under_the_tool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, report: str, status: str
) -> None:
    """The program is replaced by one that writes a report and runs its command."""
    program = tmp_path / "compute-sanitizer"
    (tmp_path / "report").write_text(report)
    program.write_text(
        "#!/bin/sh\n"
        'while [ "$1" != --log-file ]; do shift; done\n'
        f'cp {tmp_path}/report "$2"\nshift 2\nexec "$@"\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    request = SectionRequest(
        "sanitizer", 0, "", str(tmp_path), str(tmp_path), module="tests.benchmarks.fake_section"
    )
    rows: list[Row] = []
    _run(GpuContext(Report(rows.append), request), "memcheck")
    assert [(row.name, row.status) for row in rows] == [("memcheck", status)]
    assert rows[0].note == "3 checks ok"
