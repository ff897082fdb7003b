"""The program on a virtual screen, with key presses and clicks sent by the X server."""

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

from realtime_ssd.core.frames import Image
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
    with os.fdopen(reading) as output:
        number = output.readline().strip()
    yield f":{number}"
    server.terminate()
    server.wait()


class Message(ctypes.Structure):
    """XClientMessageEvent, padded to the size of XEvent."""

    _fields_ = (
        ("kind", ctypes.c_int),
        ("serial", ctypes.c_ulong),
        ("sent", ctypes.c_int),
        ("display", ctypes.c_void_p),
        ("window", ctypes.c_ulong),
        ("message", ctypes.c_ulong),
        ("format", ctypes.c_int),
        ("data", ctypes.c_long * 5),
        ("padding", ctypes.c_long * 24),
    )


def read_snapshot(folder: Path, number: int) -> Image:
    image = cv2.imread(str(folder / f"realtime-ssd-{number:03d}.png"))
    assert image is not None
    return np.asarray(image, np.uint8)


CLIENT_MESSAGE, STRUCTURE_NOTIFY = 33, 1 << 17


# In place of Xlib's handler, which ends the process, for example if a window is already gone.
ignore_error = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(lambda *_: 0)


class WindowManager:
    """Sends the messages of a window manager to windows."""

    def __init__(self, display: str) -> None:
        self._x11 = ctypes.CDLL("libX11.so.6")
        self._x11.XSetErrorHandler(ignore_error)
        self._x11.XOpenDisplay.restype = ctypes.c_void_p
        self._x11.XInternAtom.restype = self._x11.XDefaultRootWindow.restype = ctypes.c_ulong
        self._display = ctypes.c_void_p(self._x11.XOpenDisplay(display.encode()))
        assert self._display, f"no connection to display {display}"
        self._root = ctypes.c_ulong(self._x11.XDefaultRootWindow(self._display))
        self._x11.XSelectInput(self._display, self._root, ctypes.c_long(STRUCTURE_NOTIFY))
        self._protocols = self._atom("WM_PROTOCOLS")

    def _atom(self, name: str) -> int:
        return int(self._x11.XInternAtom(self._display, name.encode(), 0))

    def _send(self, window: int, protocol: str) -> None:
        data = (self._atom(protocol), 0, window)
        message = Message(CLIENT_MESSAGE, 0, 1, self._display, window, self._protocols, 32, data)
        self._x11.XSendEvent(
            self._display, ctypes.c_ulong(window), 0, ctypes.c_long(0), ctypes.byref(message)
        )
        self._x11.XFlush(self._display)

    def click_close_button(self, window: int) -> None:
        self._send(window, "WM_DELETE_WINDOW")

    def ping(self, window: int) -> None:
        """Wait until the program has processed all earlier events of a window."""
        self._send(window, "_NET_WM_PING")
        event = Message()
        while (event.kind, event.message) != (CLIENT_MESSAGE, self._protocols):
            self._x11.XNextEvent(self._display, ctypes.byref(event))

    def close(self) -> None:
        self._x11.XCloseDisplay(self._display)


class Program:
    """The program on a virtual screen."""

    def __init__(self, display: str, folder: Path, *arguments: object) -> None:
        self.manager = WindowManager(display)
        self.environment = {**os.environ, "DISPLAY": display, "QT_QPA_PLATFORM": "xcb"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "realtime_ssd", *map(str, arguments)],
            env=self.environment,
            cwd=folder,
            stderr=subprocess.PIPE,
            text=True,
        )

    def xdotool(self, *arguments: str) -> str:
        done = subprocess.run(
            ["xdotool", *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        return done.stdout.strip()

    def wait_for_window(self, name: str = "demo") -> str:
        """Return the identifier of the window with a title."""
        return self.xdotool("search", "--sync", "--onlyvisible", "--name", name).splitlines()[0]

    def press(self, window: str, key: str) -> None:
        """Press a key; two keys that arrive in the same call of `cv2.waitKeyEx` would be one."""
        self.manager.ping(int(window))
        self.xdotool("windowfocus", "--sync", window)
        self.xdotool("key", key)

    def read_line(self) -> str:
        """Return the next line of standard error that is not a progress line."""
        assert self.process.stderr is not None
        while " FPS" in (line := self.process.stderr.readline()):
            pass
        return line

    def wait(self) -> str:
        """Return the rest of standard error."""
        assert self.process.stderr is not None
        output = self.process.stderr.read()
        self.process.wait(timeout=30)
        self.manager.close()
        return output


def test_keys_save_snapshots_pause_and_show_help(display: str, tiny: Path, tmp_path: Path) -> None:
    program = Program(
        display, tmp_path, "--source", "demo:320x180,frames=0", "--model", tiny, "--show"
    )
    window = program.wait_for_window()
    program.press(window, "s")
    assert "snapshot realtime-ssd-001.png" in program.read_line()
    program.press(window, "space")
    program.press(window, "h")
    program.press(window, "s")  # both have an effect during a pause
    assert "snapshot realtime-ssd-002.png" in program.read_line()
    program.press(window, "space")
    program.press(window, "q")
    assert "frames in" in program.wait()
    assert program.process.returncode == 0
    plain, helped = (read_snapshot(tmp_path, number) for number in (1, 2))
    assert plain.shape == helped.shape == (180, 320, 3)  # without the bar


def test_pause_keeps_the_frame(display: str, tiny: Path, tmp_path: Path) -> None:
    program = Program(
        display, tmp_path, "--source", "demo:320x180,frames=0", "--model", tiny, "--show"
    )
    window = program.wait_for_window()
    program.press(window, "space")
    for number in (1, 2, 3):
        program.press(window, "s")
        assert f"snapshot realtime-ssd-00{number}.png" in program.read_line()
    program.press(window, "space")
    program.press(window, "Escape")
    program.wait()
    assert program.process.returncode == 0
    first = read_snapshot(tmp_path, 1)
    for number in (2, 3):
        np.testing.assert_array_equal(read_snapshot(tmp_path, number), first)


def test_image_is_shown_until_a_key_is_pressed(display: str, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for number in range(3):
        image = np.full((96, 160, 3), 60 * number, np.uint8)
        cv2.imwrite(str(tmp_path / f"photos/{number}.png"), image)
    program = Program(display, tmp_path, "--source", "photos", "--model", tiny, "--show")
    window = program.wait_for_window("photos")
    for number in (1, 2):
        program.press(window, "s")  # does not continue
        assert f"snapshot realtime-ssd-00{number}.png" in program.read_line()
        program.press(window, "Right")
    program.press(window, "q")
    assert "photos in" in program.wait()
    assert program.process.returncode == 0
    corners = [read_snapshot(tmp_path, number)[-1, -1, 0] for number in (1, 2)]
    assert corners == [0, 60]


def test_pause_discards_the_frames_of_a_camera(display: str, tiny: Path, tmp_path: Path) -> None:
    with RtspCamera() as camera:
        arguments = ("--source", camera.url, "--model", tiny, "--show", "--json", "lines.jsonl")
        program = Program(display, tmp_path, *arguments)
        window = program.wait_for_window("rtsp")
        program.press(window, "space")
        program.press(window, "s")
        assert "snapshot" in program.read_line()
        count = len((tmp_path / "lines.jsonl").read_text().splitlines())
        while len((tmp_path / "lines.jsonl").read_text().splitlines()) < count + 20:
            assert program.process.poll() is None
        program.press(window, "s")
        assert "snapshot" in program.read_line()
        program.press(window, "q")
        program.wait()
    first, second = (read_snapshot(tmp_path, number) for number in (1, 2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("source", ["photo.png", "demo:320x180,frames=0"])
def test_interrupt_ends_a_program_that_waits_for_a_key(
    display: str, tiny: Path, tmp_path: Path, source: str
) -> None:
    cv2.imwrite(str(tmp_path / "photo.png"), np.zeros((96, 160, 3), np.uint8))
    program = Program(display, tmp_path, "--source", source, "--model", tiny, "--show")
    window = program.wait_for_window(source[:4])
    if source.startswith("demo"):
        program.press(window, "space")
    program.press(window, "s")
    assert "snapshot" in program.read_line()
    start = time.monotonic()
    program.process.send_signal(signal.SIGINT)
    program.wait()
    assert time.monotonic() - start < 2
    assert program.process.returncode == 128 + signal.SIGINT


def test_file_is_shown_at_the_rate_of_its_recording(
    display: str, tiny: Path, tmp_path: Path
) -> None:
    arguments = (
        "--source",
        "demo:160x96@10,frames=16",
        "--model",
        tiny,
        "--show",
        "--stats",
        "s.json",
    )
    program = Program(display, tmp_path, *arguments)
    assert "16 frames" in program.wait()
    assert json.loads((tmp_path / "s.json").read_text())["seconds"] >= 1.4


def test_close_button_ends_the_program(display: str, tiny: Path, tmp_path: Path) -> None:
    program = Program(
        display, tmp_path, "--source", "demo:320x180,frames=0", "--model", tiny, "--show"
    )
    window = program.wait_for_window()
    program.press(window, "s")
    assert "snapshot" in program.read_line()  # the first frame is shown
    program.manager.click_close_button(int(window))
    output = program.wait()
    assert program.process.returncode == 0, output
    assert "frames in" in output
