"""The figures of `docs/ssd.md` are up to date and reproducible."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from realtime_ssd_training.illustrate.__main__ import main
from realtime_ssd_training.illustrate.figure_list import FIGURES

PAGE_PATH = Path(__file__).resolve().parents[2] / "docs/ssd.md"


@pytest.mark.slow
def test_figures_are_up_to_date(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = re.findall(r"!\[[^\]]+\]\((images/[^)]+)\)", PAGE_PATH.read_text(encoding="utf-8"))
    assert sorted(shown) == sorted(f"images/{name}.png" for name in FIGURES)
    sizes = [(PAGE_PATH.parent / path).stat().st_size for path in shown]
    assert max(sizes) < 150_000
    assert sum(sizes) < 600_000
    assert main([str(tmp_path)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(FIGURES)
    for path in shown:
        committed = cv2.imread(str(PAGE_PATH.parent / path))
        redrawn = cv2.imread(str(tmp_path / Path(path).name))
        assert committed is not None
        assert redrawn is not None
        # Other versions of matplotlib may move lines by a pixel.
        assert np.abs(np.subtract(committed.shape, redrawn.shape)).max() <= 0.02 * max(
            committed.shape
        )
        small = [
            cv2.resize(each, (160, 80), interpolation=cv2.INTER_AREA)
            for each in (committed, redrawn)
        ]
        assert np.abs(np.subtract(*small, dtype=float)).mean() < 6, f"{path} is out of date"


def test_figures_are_reproducible(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        assert main([str(tmp_path / name), "--only", "ssd_losses", "ssd_example"]) == 0
    for name in ("ssd_losses.png", "ssd_example.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_unwritable_figures_are_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path / "none")]) == 2
    assert "does not exist" in capsys.readouterr().err
    (tmp_path / "ssd_losses.png").mkdir()
    assert main([str(tmp_path), "--only", "ssd_losses"]) == 2
    assert "cannot be written" in capsys.readouterr().err
