"""The package that docs/extending.md builds works."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
BLOCKS: list[tuple[str, str]] = re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL)
FILES = {
    match[1]: text for _, text in BLOCKS if (match := re.match(r"# (\S+\.(?:py|toml))\n", text))
}
SCRIPTS = [text for language, text in BLOCKS if language == "python" and text[0] != "#"]
COMMANDS = [text.split() for language, text in BLOCKS if language == "bash"]


def entry_points(project: dict[str, Any]) -> str:
    """Return the text of a distribution's entry_points.txt."""
    lines = []
    for group, entries in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in entries.items())]
    return "\n".join(lines)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the installed package."""
    folder = tmp_path_factory.mktemp("site")
    project = tomllib.loads(FILES["pyproject.toml"])["project"]
    for name, text in FILES.items():
        if name.endswith(".py"):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
    info = folder / "traffic_tools-1.0.dist-info"
    info.mkdir()
    metadata = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    (info / "METADATA").write_text(metadata)
    (info / "entry_points.txt").write_text(entry_points(project))
    return folder


def run(site: Path, folder: Path, *arguments: str) -> str:
    paths = [str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {name: value for name, value in os.environ.items() if "DISPLAY" not in name}
    finished = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**environment, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_commands(site: Path, tmp_path: Path, command: list[str]) -> None:
    program, *arguments = command
    assert program == "realtime-ssd"
    output = run(site, tmp_path, "-m", "realtime_ssd", *arguments)
    if "--sink" in arguments:
        header, *rows = (tmp_path / "detections.tsv").read_text().splitlines()
        assert header.startswith("source\tframe\ttime\tlabel")
        assert len(rows) > 20
        assert any("\tcar\t" in row for row in rows)
    if "noise:320x180" in arguments:
        assert len((tmp_path / "noise.jsonl").read_text().splitlines()) == 5
    if "--processor" in arguments:
        assert json.loads((tmp_path / "stats.json").read_text())["latency_ms"]["appearance"]
    if "--output" in arguments:
        assert (tmp_path / "clock.mp4").stat().st_size > 1000
    if "--observer" in arguments:
        assert re.search(r"s  demo.*: online\n", output)
        assert re.search(r"s  demo.*: ended\n", output)
    if arguments[0] == "labels":
        assert "traffic light" in output


@pytest.mark.parametrize("script", SCRIPTS, ids=range(len(SCRIPTS)))
def test_scripts(site: Path, tmp_path: Path, script: str) -> None:
    output = run(site, tmp_path, "-c", script)
    if "Appearance" in script:
        with (tmp_path / "cars.tsv").open() as file:
            frames = {
                int(row["frame"])
                for row in csv.DictReader(file, delimiter="\t")
                if row["label"] == "car"
            }
        expected = len(frames - {frame + 1 for frame in frames})
        assert len(re.findall(r"^0\.\d\d s: car appears$", output, re.MULTILINE)) == expected > 0


def test_every_file_is_used() -> None:
    used = PAGE.replace("/", ".")
    for name in FILES:
        if name.endswith(".py"):
            module = name.removesuffix(".py").replace("/", ".")
            assert used.count(module) > 1, name
