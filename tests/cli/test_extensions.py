"""A package that registers a processor, an annotator, a sink and an observer by entry points."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

MODULE = '''
"""Extensions of realtime-ssd, as a user would write them."""

import json
from pathlib import Path

from realtime_ssd.core.results import Event
from realtime_ssd.processors import BaseProcessor
from realtime_ssd.sinks.base import BaseSink


class Presence(BaseProcessor):
    """Reports the first frame in which a label is present."""

    name = "presence"

    def __init__(self, source, label):
        self.source, self.label, self.reported = source, label, False

    def process(self, result):
        present = any(detection.label == self.label for detection in result.detections)
        if present and not self.reported:
            self.reported = True
            result.events.append(Event("present", result.frame.time, {"label": self.label}))
        return result


def create_presence(info, argument):
    return Presence(info.name, argument)


class Corner:
    """Fills the upper left corner with blue."""

    def annotate(self, image, result):
        image[:8, :8] = (255, 0, 0)


def create_corner(argument):
    assert argument == ""
    return Corner()


class EventSink(BaseSink):
    """Appends every event to a file."""

    def __init__(self, path, policy):
        self.path, self.policy = Path(path), policy

    def write(self, result):
        with self.path.open("a") as file:
            for event in result.events:
                line = {"kind": event.kind, "frame": result.frame.index, **event.data}
                print(json.dumps(line), file=file)

    def close(self):
        with self.path.open("a") as file:
            print("closed", file=file)


class EventSinkPlugin:
    suffixes, per_source = (), False

    def files(self, target, info):
        return [] if target == "broken" else [Path(target)]

    def open(self, target, info, overwrite):
        if target == "broken":
            return Broken()
        return EventSink(target, "block")


class Broken(BaseSink):
    policy = "latest"

    def write(self, result):
        raise ConnectionError("no broker")


EVENTS = EventSinkPlugin()


class CountingObserver:
    """Writes the number of frames by outcome when the source ends."""

    def __init__(self, path):
        self.path, self.counts = Path(path), {}

    def on_frame(self, source, outcome):
        self.counts[outcome] = self.counts.get(outcome, 0) + 1
        self.path.write_text(json.dumps(self.counts))

    def on_stage(self, source, stage, seconds):
        pass

    def on_state(self, source, state):
        pass


create_counter = CountingObserver


def hello():
    """Say hello."""
    print("hello from a plug-in")
'''

COMMANDS = """
from realtime_ssd.cli.command import Command

HELLO = Command("street_tools:hello", "Print a greeting.")
"""

ENTRY_POINTS = """
[realtime_ssd.processors]
presence = street_tools:create_presence

[realtime_ssd.annotators]
corner = street_tools:create_corner

[realtime_ssd.sinks]
events = street_tools:EVENTS

[realtime_ssd.observers]
count = street_tools:create_counter

[realtime_ssd.commands]
hello = street_tools_commands:HELLO
missing = street_tools_absent:NOTHING
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with an installed distribution of a single module."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "street_tools.py").write_text(MODULE)
    (folder / "street_tools_commands.py").write_text(COMMANDS)
    info = folder / "street_tools-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: street-tools\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    return folder


def run(package: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    paths = [str(package), os.environ.get("PYTHONPATH", "")]
    return subprocess.run(
        [sys.executable, "-m", "realtime_ssd", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "COLUMNS": "120"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.tiny import bright_cell

    folder = tmp_path_factory.mktemp("photos")
    for number in range(3):
        cv2.imwrite(str(folder / f"{number}.png"), bright_cell((2, number)))
    return folder


def test_all_extensions_work_together(
    package: Path, photos: Path, tiny: Path, tmp_path: Path
) -> None:
    events, counts = tmp_path / "events.jsonl", tmp_path / "counts.json"
    finished = run(
        package, "--source", photos, "--model", tiny, "--output", tmp_path / "out",
        "--processor", "presence:bright", "--processor", "presence:dark", "--annotator", "corner",
        "--sink", f"events:{events}", "--observer", f"count:{counts}",
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    *lines, last = events.read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"kind": "present", "frame": 0, "label": "bright"}
    ]
    assert last == "closed"
    assert json.loads(counts.read_text()) == {"captured": 3, "processed": 3}
    image = cv2.imread(str(tmp_path / "out" / "1.png"))
    assert image is not None
    assert (image[:8, :8] == (255, 0, 0)).all()
    assert not (image[8:16, 8:16] == (255, 0, 0)).all()


def test_a_failing_latest_sink_is_named_and_everything_else_is_written(
    package: Path, photos: Path, tiny: Path, tmp_path: Path
) -> None:
    finished = run(
        package, "--source", photos, "--model", tiny, "--sink", "events:broken",
        "--json", tmp_path / "o.jsonl", "--stats", tmp_path / "s.json",
    )  # fmt: skip
    assert finished.returncode == 1
    assert "Broken failed on frame" in finished.stderr
    assert "no broker" in finished.stderr
    assert "Traceback" not in finished.stderr
    assert len((tmp_path / "o.jsonl").read_text().splitlines()) == 3
    assert json.loads((tmp_path / "s.json").read_text())["processed"] == 3


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("--processor", "there is no processor 'presense'; did you mean 'presence'?"),
        ("--sink", "'presense' is not a supported output; use NAME:TARGET with one of "),
        ("--annotator", "there is no annotator 'presense'; installed: corner"),
        ("--observer", "there is no observer 'presense'; installed: count"),
    ],
)
def test_unknown_extensions_are_usage_errors(
    package: Path, tiny: Path, option: str, text: str
) -> None:
    finished = run(package, "--source", "demo:frames=1", "--model", tiny, option, "presense")
    assert finished.returncode == 2
    assert text in finished.stderr


def test_commands_of_other_packages(package: Path) -> None:
    """A command that cannot be imported is skipped with a warning."""
    listed = run(package, "--help")
    assert "Print a greeting." in listed.stdout
    assert "plug-in 'missing' of group 'realtime_ssd.commands'" in listed.stderr
    assert run(package, "hello").stdout == "hello from a plug-in\n"
