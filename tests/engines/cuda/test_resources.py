"""The kernels compile for old and new architectures without register spills."""

from __future__ import annotations

import json

import pytest
from realtime_ssd_engines.cuda.compile import nvcc_path

from benchmarks.gpu.kernel_resources import (
    ARCHITECTURES,
    MODELS,
    RESULTS,
    measure,
    parse_ptxas_report,
)

REPORT = """
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'ssd_select' for 'sm_90'
ptxas info    : Function properties for ssd_select
    16 bytes stack frame, 8 bytes spill stores, 4 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 5136 bytes smem
ptxas info    : Compile time = 12.3 ms
ptxas info    : Compiling entry function 'ssd_preprocess' for 'sm_90'
ptxas info    : Function properties for ssd_preprocess
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 30 registers, used 0 barriers, 396 bytes cmem[0]
"""


def test_ptxas_reports_are_parsed() -> None:
    first, second = parse_ptxas_report(REPORT, "m", "fp16")
    assert (first.kernel, first.registers, first.shared) == ("ssd_select", 40, 5136)
    assert (first.stack, first.spill_stores, first.spill_loads) == (16, 8, 4)
    assert (second.kernel, second.registers, second.shared) == ("ssd_preprocess", 30, 0)


@pytest.mark.skipif(nvcc_path() is None, reason="nvcc is not installed")
@pytest.mark.parametrize("architecture", ["sm_75", "sm_90"])
def test_kernels_compile_without_spills(architecture: str) -> None:
    rows = measure(MODELS[0], "fp16", architecture)
    assert {row.kernel for row in rows} == {"ssd_select", "ssd_suppress", "ssd_preprocess"}
    assert all(row.architecture == architecture for row in rows)
    assert all(row.registers <= 128 and row.shared <= 48 << 10 for row in rows)
    assert not any(row.spill_stores or row.spill_loads for row in rows)


def test_the_recorded_results_cover_every_architecture() -> None:
    rows = json.loads(RESULTS.read_text())["kernels"]
    assert {row["architecture"] for row in rows} == set(ARCHITECTURES)
    assert not any(row["spill_stores"] for row in rows)
