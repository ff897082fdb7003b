"""The README's figures are those of the result files."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from benchmarks import machine, readme
from benchmarks.machine import write
from benchmarks.readme_chart import draw


def test_readme_and_chart_are_made_from_the_files() -> None:
    text, chart = readme.made()
    written = readme.README.read_text(encoding="utf-8")
    hint = "run python -m benchmarks.readme"
    assert readme.inserted(written, text) == written, hint
    assert readme.CHART.read_text(encoding="utf-8") == chart, hint


def test_another_figure_is_noticed() -> None:
    path = readme.newest()[0]
    result = json.loads(path.read_text(encoding="utf-8"))
    before = readme.lines_of(result)
    rows = next(part for part in result["loops"].values() if isinstance(part, dict))
    rows["realtime-ssd"]["fps"] = [value * 2 for value in rows["realtime-ssd"]["fps"]]
    assert readme.lines_of(result) != before


def test_a_missed_goal_is_said_with_its_reason() -> None:
    for path in readme.newest():
        lines = readme.lines_of(json.loads(path.read_text(encoding="utf-8")))
        missed = [line for line in lines if line.met is False]
        text = readme.section(path)
        cited = re.findall(r"missed\*\* \((\d+)\)", text)
        assert len(cited) == len(missed)
        assert set(cited) == set(re.findall(r"^(\d+)\. .+", text, re.MULTILINE))
        assert "not known yet" not in text


def test_what_a_written_file_lacks_is_said() -> None:
    kept = {"frames": True, "seconds_first_to_last": True, "audio_packets": True}
    row = {
        "fps": {"realtime-ssd": [10.0], "opencv": [20.0]},
        "ratio": 0.5,
        "written": {"realtime-ssd": {"codec": "h264"}, "opencv": {"codec": "mpeg4"}},
        "same_as_source": {
            "realtime-ssd": kept,
            "opencv": {**kept, "frames": False, "audio_packets": False},
        },
    }
    (line,) = readme.lines_of({"annotate": {"clip.mp4": row}})
    assert line.ours == "10 FPS, h264, all of it"
    assert line.other == "20 FPS, mpeg4, without its frames and sound"


def test_versions_of_each_environment_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "result.json"
    for name, version in (("loops", "1"), ("scaling", "2")):
        about = {"load": 0.1, "packages": {"torch": version}}
        monkeypatch.setattr(machine, "describe", lambda about=about: dict(about))
        write(name, {"x": version}, file)
    kept = json.loads(file.read_text())
    assert kept["versions"] == {"loops": {"torch": "1"}, "scaling": {"torch": "2"}}
    assert kept["loops"] == {"load_at_end": 0.1, "x": "1"}


def test_text_goes_between_the_marks_only() -> None:
    page = f"a\n{readme.BEGIN}\nold\n{readme.END}\nb\n"
    made = readme.inserted(page, "new")
    assert made == f"a\n{readme.BEGIN}\nnew\n{readme.END}\nb\n"
    with pytest.raises(SystemExit, match="lacks the marks"):
        readme.inserted("no marks", "new")


def test_chart_has_a_bar_for_each_comparison_of_each_machine() -> None:
    machines = {
        "one": [("a < b", 2.0, True), ("c", 0.5, False)],
        "two": [("a < b", 3.0, None)],
    }
    chart = draw(machines)
    assert chart.count("a &lt; b") == 2
    assert [chart.count(f">{figure}<") for figure in ("2.00", "0.50", "3.00")] == [1, 1, 1]
    assert chart.index(">one<") < chart.index(">2.00<") < chart.index(">two<")
    assert chart.index(">two<") < chart.index(">3.00<")
    assert chart == draw(machines)
