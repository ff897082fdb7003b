"""The window on a virtual screen, with keys pressed as a user presses them."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.sources.rtsp import RtspCamera

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

    def window(self, name: str = "demo") -> str:
        """Wait for the window."""
        return self.tool("search", "--sync", "--onlyvisible", "--name", name).splitlines()[0]

    def press(self, window: str, key: str) -> None:
        self.tool("windowfocus", "--sync", window)
        self.tool("key", key)

    def line(self) -> str:
        """Wait for the next line that does not only tell how far it is."""
        assert self.program.stderr is not None
        while " FPS" in (line := self.program.stderr.readline()):
            pass
        return line

    def end(self) -> str:
        assert self.program.stderr is not None
        said = self.program.stderr.read()
        self.program.wait(timeout=30)
        return said


class Message(ctypes.Structure):
    """XClientMessageEvent."""

    _fields_ = (
        ("kind", ctypes.c_int),
        ("serial", ctypes.c_ulong),
        ("sent", ctypes.c_int),
        ("display", ctypes.c_void_p),
        ("window", ctypes.c_ulong),
        ("message", ctypes.c_ulong),
        ("format", ctypes.c_int),
        ("data", ctypes.c_long * 5),
        ("rest", ctypes.c_long * 24),
    )


def ask_to_close(display: str, window: int) -> None:
    """Send what the cross in the corner of a window sends."""
    x11 = ctypes.CDLL("libX11.so.6")
    x11.XOpenDisplay.restype = ctypes.c_void_p
    x11.XInternAtom.restype = ctypes.c_ulong
    screen = ctypes.c_void_p(x11.XOpenDisplay(display.encode()))
    protocols, delete = (
        x11.XInternAtom(screen, name, 0) for name in (b"WM_PROTOCOLS", b"WM_DELETE_WINDOW")
    )
    message = Message(33, 0, 1, screen, window, protocols, 32, (delete, 0))
    x11.XSendEvent(screen, ctypes.c_ulong(window), 0, ctypes.c_long(0), ctypes.byref(message))
    x11.XCloseDisplay(screen)


def test_keys(display: str, tiny: Path, tmp_path: Path) -> None:
    screen = Screen(
        display, tmp_path, "--source", "demo:320x180,frames=0", "--model", tiny, "--show"
    )
    window = screen.window()
    screen.press(window, "s")
    assert "snapshot realtime-ssd-001.png" in screen.line()
    screen.press(window, "space")
    screen.press(window, "h")
    screen.press(window, "s")  # both answered while paused
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


def test_pause_holds_the_picture(display: str, tiny: Path, tmp_path: Path) -> None:
    screen = Screen(
        display, tmp_path, "--source", "demo:320x180,frames=0", "--model", tiny, "--show"
    )
    window = screen.window()
    screen.press(window, "space")
    for number in (1, 2, 3):
        screen.press(window, "s")
        assert f"snapshot realtime-ssd-00{number}.png" in screen.line()
    screen.press(window, "space")
    screen.press(window, "Escape")
    screen.end()
    assert screen.program.returncode == 0
    pictures = [cv2.imread(str(tmp_path / f"realtime-ssd-00{k}.png")) for k in (1, 2, 3)]
    assert all((one == pictures[0]).all() for one in pictures)


def test_a_photo_stays_until_a_key_is_pressed(display: str, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for number in range(3):
        image = np.full((96, 160, 3), 60 * number, np.uint8)
        cv2.imwrite(str(tmp_path / f"photos/{number}.png"), image)
    screen = Screen(display, tmp_path, "--source", "photos", "--model", tiny, "--show")
    window = screen.window("photos")
    for number in (1, 2):
        screen.press(window, "s")  # saves, and stays
        assert f"snapshot realtime-ssd-00{number}.png" in screen.line()
        screen.press(window, "Right")
    screen.press(window, "q")
    assert "frames," in screen.end()
    assert screen.program.returncode == 0
    corners = [cv2.imread(str(tmp_path / f"realtime-ssd-00{k}.png"))[-1, -1, 0] for k in (1, 2)]
    assert corners == [0, 60]


def test_pause_lets_the_frames_of_a_camera_pass(display: str, tiny: Path, tmp_path: Path) -> None:
    with RtspCamera() as camera:
        url = f"rtsp://127.0.0.1:{camera.port}/live"
        words = ("--source", url, "--model", tiny, "--show", "--json", "lines.jsonl")
        screen = Screen(display, tmp_path, *words)
        window = screen.window("rtsp")
        screen.press(window, "space")
        screen.press(window, "s")
        assert "snapshot" in screen.line()
        seen = len((tmp_path / "lines.jsonl").read_text().splitlines())
        while len((tmp_path / "lines.jsonl").read_text().splitlines()) < seen + 20:
            assert screen.program.poll() is None
        screen.press(window, "s")
        assert "snapshot" in screen.line()
        screen.press(window, "q")
        screen.end()
    first, second = (cv2.imread(str(tmp_path / f"realtime-ssd-00{k}.png")) for k in (1, 2))
    assert first is not None
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("source", ["photo.png", "demo:320x180,frames=0"])
def test_ctrl_c_ends_a_window_that_waits(
    display: str, tiny: Path, tmp_path: Path, source: str
) -> None:
    cv2.imwrite(str(tmp_path / "photo.png"), np.zeros((96, 160, 3), np.uint8))
    screen = Screen(display, tmp_path, "--source", source, "--model", tiny, "--show")
    window = screen.window(source[:4])
    if source.startswith("demo"):
        screen.press(window, "space")
    screen.press(window, "s")
    assert "snapshot" in screen.line()
    begun = time.monotonic()
    screen.program.send_signal(signal.SIGINT)
    screen.end()
    assert time.monotonic() - begun < 2
    assert screen.program.returncode == 128 + signal.SIGINT


def test_a_file_is_shown_as_fast_as_it_was_recorded(
    display: str, tiny: Path, tmp_path: Path
) -> None:
    words = ("--source", "demo:160x96@10,frames=16", "--model", tiny, "--show", "--stats", "s.json")
    screen = Screen(display, tmp_path, *words)
    assert "16 frames" in screen.end()
    assert json.loads((tmp_path / "s.json").read_text())["seconds"] >= 1.4


def test_closing_the_window_ends_the_program(display: str, tiny: Path, tmp_path: Path) -> None:
    screen = Screen(
        display, tmp_path, "--source", "demo:320x180,frames=0", "--model", tiny, "--show"
    )
    window = screen.window()
    ask_to_close(display, int(window))
    said = screen.end()
    assert screen.program.returncode == 0, said
    assert "frames," in said
