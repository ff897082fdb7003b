"""`realtime-ssd build` checks all of its output files before it builds."""

from __future__ import annotations

from pathlib import Path

import pytest
from realtime_ssd_engines.cli.build import build

from realtime_ssd.core.errors import UsageError


@pytest.fixture(autouse=True)
def no_build(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        pytest.fail("a build started")

    monkeypatch.setattr("realtime_ssd_engines.tensorrt.engine_builder.get_or_build_engine", fail)


def test_metadata_file_of_the_engine_is_not_overwritten(tiny: Path, tmp_path: Path) -> None:
    notes = tmp_path / "a.json"
    notes.write_text("precious")
    with pytest.raises(UsageError, match=r"a\.json' exists; set `overwrite`"):
        build(str(tiny), output=tmp_path / "a.engine")
    assert notes.read_text() == "precious"


def test_report_may_not_be_the_metadata_file(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is used for two outputs"):
        build(str(tiny), output=tmp_path / "a.engine", report=tmp_path / "a.json", overwrite=True)


def test_model_is_never_an_output(tiny: Path) -> None:
    before = tiny.read_bytes()
    with pytest.raises(UsageError, match="is the model; write to another file"):
        build(str(tiny), output=tiny, overwrite=True)
    assert tiny.read_bytes() == before
