"""The window on a virtual screen, with keys pressed as a user presses them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest

TOOLS = ("Xvfb", "xdotool")


@pytest.fixture(scope="module")
def display() -> Iterator[str]:
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not installed (apt install xvfb xdotool)")
    reading, writing = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(writing), "-screen", "0", "1024x768x24", "-nolisten", "tcp"],
        pass_fds=[writing],
        stderr=subprocess.DEVNULL,
    )
    os.close(writing)
    with os.fdopen(reading) as answer:
        number = answer.readline().strip()
    yield f":{number}"
    server.terminate()
    server.wait()


class Screen:
    """A program on a virtual screen."""

    def __init__(self, display: str, folder: Path, *words: object) -> None:
        self.environment = {**os.environ, "DISPLAY": display, "QT_QPA_PLATFORM": "xcb"}
        self.program = subprocess.Popen(
            [sys.executable, "-m", "realtime_ssd", *map(str, words)],
            env=self.environment,
            cwd=folder,
            stderr=subprocess.PIPE,
            text=True,
        )

    def tool(self, *words: str) -> str:
        done = subprocess.run(
            ["xdotool", *words],
            env=self.environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        return done.stdout.strip()

    def window(self) -> str:
        """Wait for the window."""
        return self.tool("search", "--sync", "--onlyvisible", "--name", "demo").splitlines()[0]

    def press(self, window: str, key: str) -> None:
        self.tool("windowfocus", "--sync", window)
        self.tool("key", key)

    def line(self) -> str:
        assert self.program.stderr is not None
        return self.program.stderr.readline()

    def end(self) -> str:
        assert self.program.stderr is not None
        said = self.program.stderr.read()
        self.program.wait(timeout=30)
        return said


def test_keys(display: str, tiny: Path, tmp_path: Path) -> None:
    screen = Screen(
        display, tmp_path, "--source", "demo:320x180,frames=0", "--model", tiny, "--show"
    )
    window = screen.window()
    screen.press(window, "s")
    assert "snapshot realtime-ssd-001.png" in screen.line()
    screen.press(window, "h")
    screen.press(window, "space")
    screen.press(window, "s")  # answered while paused
    assert "snapshot realtime-ssd-002.png" in screen.line()
    screen.press(window, "space")
    screen.press(window, "q")
    assert "frames," in screen.end()
    assert screen.program.returncode == 0
    plain, helped = (cv2.imread(str(tmp_path / f"realtime-ssd-00{k}.png")) for k in (1, 2))
    assert plain is not None
    assert helped is not None
    assert plain.shape == helped.shape == (180, 320, 3)
    white = [int((p[20:70, :60] > 220).all(axis=2).sum()) for p in (plain, helped)]
    assert white[1] > white[0] + 50  # the lines of the help


def test_closing_the_window_ends_the_program(display: str, tiny: Path, tmp_path: Path) -> None:
    screen = Screen(
        display, tmp_path, "--source", "demo:320x180,frames=0", "--model", tiny, "--show"
    )
    window = screen.window()
    screen.press(window, "Escape")
    assert "frames," in screen.end()
    assert screen.program.returncode == 0
