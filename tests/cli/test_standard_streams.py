"""Terminals, closed streams, and readers that leave: results and statistics stay complete."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.program import ENVIRONMENT
from tests.videos import readable

TERMINAL = {**ENVIRONMENT, "TERM": "xterm"}


def program(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "realtime_ssd", *map(str, arguments)]


def read_terminal(master: int) -> str:
    """Return all that is written to a pseudo-terminal until it is closed."""
    data = b""
    while True:
        try:
            chunk = os.read(master, 65536)
        except OSError:  # the other side is closed
            break
        if not chunk:
            break
        data += chunk
    os.close(master)
    return data.decode().replace("\r\n", "\n")


def test_json_lines_of_a_terminal_session_reach_the_file(tiny: Path, tmp_path: Path) -> None:
    master, slave = pty.openpty()
    with (tmp_path / "o.jsonl").open("wb") as file:
        arguments = ("--source", "demo:160x96,frames=3", "--model", tiny, "--json", "-")
        process = subprocess.Popen(
            program(*arguments), stdin=slave, stdout=file, stderr=slave, env=TERMINAL
        )
    os.close(slave)
    shown = read_terminal(master)
    assert process.wait(60) == 0, shown
    lines = (tmp_path / "o.jsonl").read_text().splitlines()
    assert [json.loads(line)["frame"] for line in lines] == [0, 1, 2]
    assert "3 frames in " in shown


def test_json_lines_in_a_terminal_are_not_mixed_with_progress(tiny: Path) -> None:
    master, slave = pty.openpty()
    arguments = ("--source", "demo:160x96,frames=30", "--model", tiny, "--json", "-")
    process = subprocess.Popen(
        program(*arguments), stdin=slave, stdout=slave, stderr=slave, env=TERMINAL
    )
    os.close(slave)
    lines = read_terminal(master).splitlines()
    assert process.wait(60) == 0
    assert [json.loads(line)["frame"] for line in lines[:30]] == list(range(30))
    assert lines[30].startswith("30 frames in ")
    assert "\x1b" not in "".join(lines)


def outputs(folder: Path) -> tuple[object, ...]:
    return ("--output", folder / "o.mp4", "--stats", folder / "s.json")


def check_outputs(folder: Path, frames: int) -> None:
    decoded, problem = readable(folder / "o.mp4")
    assert (len(decoded), problem) == (frames, "")
    assert json.loads((folder / "s.json").read_text())["processed"] == frames


def test_files_are_complete_after_the_reader_left(tiny: Path, tmp_path: Path) -> None:
    arguments = ("--source", "demo:160x96,frames=60", "--model", tiny, "--json", "-")
    process = subprocess.Popen(
        program(*arguments, *outputs(tmp_path)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    messages = process.stderr.read().decode()
    assert process.wait(60) == 0, messages
    assert "the reader of standard output left; the other outputs continue" in messages
    check_outputs(tmp_path, 60)


@pytest.mark.slow
def test_the_run_ends_when_the_only_reader_leaves(tiny: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(
        program(
            *("--source", "demo:160x96@30,frames=0", "--model", tiny, "--json", "-"),
            *("--stats", tmp_path / "s.json"),
        ),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(60) == 1
    assert json.loads((tmp_path / "s.json").read_text())["processed"] > 0


def test_a_log_pipe_that_leaves_is_ignored(tiny: Path, tmp_path: Path) -> None:
    arguments = ("--source", "demo:160x96,frames=20", "--model", tiny, *outputs(tmp_path))
    process = subprocess.Popen(
        program(*arguments), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=ENVIRONMENT
    )
    assert process.stderr is not None
    process.stderr.close()
    assert process.wait(60) == 0
    check_outputs(tmp_path, 20)


@pytest.mark.parametrize("closed", ["0<&- 1>&- 2>&-", ">/dev/full 2>/dev/full"])
def test_closed_and_full_streams_are_ignored(tiny: Path, tmp_path: Path, closed: str) -> None:
    arguments = ("--source", "demo:160x96,frames=5", "--model", tiny, *outputs(tmp_path))
    command = " ".join([*program(*arguments), closed])
    assert subprocess.run(["sh", "-c", command], check=False, env=ENVIRONMENT).returncode == 0
    check_outputs(tmp_path, 5)


def test_json_lines_need_standard_output(tiny: Path) -> None:
    arguments = program("--source", "demo:160x96,frames=5", "--model", tiny, "--json", "-")
    finished = subprocess.run(
        ["sh", "-c", f"{' '.join(arguments)} >&-"],
        capture_output=True, check=False, env=ENVIRONMENT,
    )  # fmt: skip
    assert finished.returncode == 2
    assert b"standard output is closed" in finished.stderr


def test_closing_the_terminal_completes_the_files(tiny: Path, tmp_path: Path) -> None:
    master, slave = pty.openpty()
    attach = "import fcntl, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
    code = attach + "from realtime_ssd.__main__ import main; main()"
    arguments = ("--source", "demo:160x96@30,frames=0", "--model", tiny, "--json", "-")
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, (*arguments, *outputs(tmp_path)))],
        stdin=slave, stdout=slave, stderr=slave, env=TERMINAL, start_new_session=True,
    )  # fmt: skip
    os.close(slave)
    shown = b""
    while shown.count(b'"frame"') < 10:
        shown += os.read(master, 65536)
    os.close(master)  # the kernel sends SIGHUP
    assert process.wait(60) == 128 + signal.SIGHUP
    processed = json.loads((tmp_path / "s.json").read_text())["processed"]
    check_outputs(tmp_path, processed)
    assert processed >= 10


@pytest.mark.slow
def test_a_run_survives_hangups_under_nohup(tiny: Path, tmp_path: Path) -> None:
    arguments = ("--source", "demo:160x96,frames=40", "--model", tiny, "--json", "-")
    process = subprocess.Popen(
        ["nohup", *program(*arguments, *outputs(tmp_path))],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT,
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGHUP)
    process.communicate()
    assert process.returncode == 0
    check_outputs(tmp_path, 40)
