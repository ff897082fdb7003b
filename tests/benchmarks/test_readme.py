"""The README's figures are those of the result files."""

from __future__ import annotations

import json
import re

import pytest

from benchmarks import readme
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
