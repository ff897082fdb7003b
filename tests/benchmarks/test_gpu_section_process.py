"""Processes of the GPU benchmark's sections: faults, restarts and the time limit."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.gpu.checks import SectionRequest
from benchmarks.gpu.report_rows import Row
from benchmarks.gpu.section_process import run_in_process


def run(tmp_path: Path, section: str, limit: float = 60) -> list[Row]:
    request = SectionRequest(
        section, 0, data="", workdir=str(tmp_path), logs=str(tmp_path), module=MODULE
    )
    rows: list[Row] = []
    run_in_process(request, limit, rows.append, log=tmp_path / "section.log")
    return rows


MODULE = "tests.benchmarks.fake_section"


@pytest.mark.parametrize(
    ("section", "status"),
    [
        ("healthy", "ok"),
        ("lost", "failed: lost"),
        ("killed", "failed: the process was ended by SIGKILL; see section.log"),
        ("status", "failed: the process ended with status 3; see section.log"),
    ],
)
def test_the_checks_after_a_fault_run_in_a_new_process(
    tmp_path: Path, section: str, status: str
) -> None:
    rows = run(tmp_path, section)
    assert [(row.name, row.status) for row in rows] == [
        ("first", "ok"),
        ("second", status),
        ("third", "ok"),
    ]
    log = (tmp_path / "section.log").read_text()
    assert log.count("a library prints this") == (1 if section == "healthy" else 2)


def test_a_section_that_does_not_end_is_stopped(tmp_path: Path) -> None:
    """Processes that it started are stopped too; otherwise this would wait for their output."""
    rows = run(tmp_path, "hang", limit=2)
    assert [(row.name, row.status) for row in rows] == [
        ("first", "ok"),
        ("second", "failed: not finished within 2 s"),
        ("third", "skipped: the time limit of 2 s was reached"),
    ]


def test_a_section_without_time_is_not_run(tmp_path: Path) -> None:
    (row,) = run(tmp_path, "healthy", limit=0)
    assert (row.name, row.status) == ("whole section", "failed: not finished within 0 s")


def test_a_process_that_cannot_start_fails_once(tmp_path: Path) -> None:
    (row,) = run(tmp_path, "cannot start")
    assert (row.name, row.value) == ("whole section", None)
    assert row.status == "failed: the process ended with status 1; see section.log"
    assert "a library is damaged" in (tmp_path / "section.log").read_text()
