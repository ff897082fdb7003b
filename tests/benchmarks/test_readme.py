"""The README's figures are those of the result files."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from benchmarks import readme, result_file
from benchmarks.readme_chart import Bar, draw_chart


def test_readme_and_chart_match_the_result_files() -> None:
    section, chart = readme.render()
    page = readme.README.read_text(encoding="utf-8")
    hint = "run python -m benchmarks.readme"
    assert readme.insert_section(page, section) == page, hint
    assert readme.CHART.read_text(encoding="utf-8") == chart, hint


def test_changed_figures_change_the_table() -> None:
    path = readme.newest_results()[0]
    results = json.loads(path.read_text(encoding="utf-8"))
    before = readme.comparisons(results)
    rows = next(part for part in results["loops"].values() if isinstance(part, dict))
    rows["realtime-ssd"]["fps"] = [value * 2 for value in rows["realtime-ssd"]["fps"]]
    assert readme.comparisons(results) != before


def test_each_missed_target_has_a_reason() -> None:
    for path in readme.newest_results():
        rows = readme.comparisons(json.loads(path.read_text(encoding="utf-8")))
        missed = [row for row in rows if row.met is False]
        section = readme.machine_section(path)
        cited = re.findall(r"missed\*\* \((\d+)\)", section)
        assert len(cited) == len(missed)
        assert set(cited) == set(re.findall(r"^(\d+)\. .+", section, re.MULTILINE))
        assert "unknown" not in section


def test_table_names_what_a_written_file_is_missing() -> None:
    complete = {"frames": True, "seconds_first_to_last": True, "audio_packets": True}
    row = {
        "fps": {"realtime-ssd": [10.0], "opencv": [20.0]},
        "ratio": 0.5,
        "written": {"realtime-ssd": {"codec": "h264"}, "opencv": {"codec": "mpeg4"}},
        "same_as_source": {
            "realtime-ssd": complete,
            "opencv": {**complete, "frames": False, "audio_packets": False},
        },
    }
    (comparison,) = readme.comparisons({"annotate": {"clip.mp4": row}})
    assert comparison.ours == "10 FPS, h264, complete"
    assert comparison.baseline == "20 FPS, mpeg4, frames and audio missing"


def test_result_file_keeps_the_versions_of_each_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "result.json"
    for name, version in (("loops", "1"), ("scaling", "2")):
        machine = {"load": 0.1, "packages": {"torch": version}}
        monkeypatch.setattr(result_file, "describe_machine", lambda machine=machine: dict(machine))
        result_file.write_result(name, {"x": version}, file)
    results = json.loads(file.read_text())
    assert results["versions"] == {"loops": {"torch": "1"}, "scaling": {"torch": "2"}}
    assert results["loops"] == {"load_at_end": 0.1, "x": "1"}


def test_section_replaces_only_the_text_between_the_markers() -> None:
    page = f"a\n{readme.BEGIN}\nold\n{readme.END}\nb\n"
    updated = readme.insert_section(page, "new")
    assert updated == f"a\n{readme.BEGIN}\nnew\n{readme.END}\nb\n"
    with pytest.raises(SystemExit, match="has no markers"):
        readme.insert_section("no markers", "new")


def test_chart_has_a_bar_for_each_comparison_of_each_machine() -> None:
    machines: Mapping[str, Sequence[Bar]] = {
        "first": [("a < b", 2.0, True), ("c", 0.5, False)],
        "second": [("a < b", 3.0, None)],
    }
    chart = draw_chart(machines)
    assert chart.count("a &lt; b") == 2
    assert [chart.count(f">{figure}<") for figure in ("2.00", "0.50", "3.00")] == [1, 1, 1]
    assert chart.index(">first<") < chart.index(">2.00<") < chart.index(">second<")
    assert chart.index(">second<") < chart.index(">3.00<")
    assert chart == draw_chart(machines)
