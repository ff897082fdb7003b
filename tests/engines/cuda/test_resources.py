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
from benchmarks.gpu.machine_code import PathCount, longest_path

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


SASS = """
.text.ssd_preprocess:
        /*0000*/                   IMAD.MOV.U32 R1, RZ, RZ, c[0x0][0x28] ;
.L_x_1:
        /*0010*/               @P0 EXIT ;
        /*0020*/                   LDG.E.64.CONSTANT R2, desc[UR4][R2.64] ;
        /*0030*/                   LDC R1, c[0x0][0x28] ;
        /*0040*/              @!P1 BRA `(.L_x_2) ;
        /*0050*/                   LD.E.U8 R8, desc[UR10][R22.64] ;
        /*0060*/                   DADD R4, R4, R6 ;
        /*0070*/                   F2F.F32.F64 R4, R4 ;
        /*0080*/                   BRA `(.L_x_3) ;
.L_x_2:
        /*0090*/                   STG.E.U16 desc[UR6][R32.64], R22 ;
.L_x_3:
        /*00a0*/                   FADD R1, R1, R2 ;
        /*00b0*/               @P2 BRA `(.L_x_3) ;
        /*00c0*/                   EXIT ;
.L_x_4:
        /*00d0*/                   BRA `(.L_x_4);
        /*00e0*/                   NOP;
"""


def test_the_longest_path_through_a_kernel_is_counted() -> None:
    """The branch that stores is shorter; a loop counts once."""
    assert longest_path(SASS) == PathCount(instructions=12, loads=2, fp64=2)


def test_the_recorded_results_cover_every_architecture() -> None:
    record = json.loads(RESULTS.read_text())
    rows, before = record["kernels"], record["before"]["kernels"]
    assert {row["architecture"] for row in rows} == set(ARCHITECTURES)
    assert not any(row["spill_stores"] for row in rows)
    for old in before:
        (new, *_) = (
            row
            for row in rows
            if (row["kernel"], row["architecture"]) == (old["kernel"], old["architecture"])
        )
        for image_format in ("bgr", "nv12"):
            assert new["instructions"][image_format] < 0.85 * old["instructions"][image_format]
            assert new["loads"][image_format] < 0.8 * old["loads"][image_format]
            assert new["fp64"][image_format] == 0 < old["fp64"][image_format]
