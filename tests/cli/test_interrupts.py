"""Ctrl+C while the program starts: no output, status 130."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading

import pytest

from tests.cli.program import ENVIRONMENT, run

# The byte shows that the interpreter itself has started, which no program can make silent.
START = "import os, realtime_ssd.__main__ as program\nos.write(1, b'>')\nprogram.main()\n"
SEED = int(os.environ.get("REALTIME_SSD_FUZZ_SEED", "0"))
TRIES = int(os.environ.get("REALTIME_SSD_FUZZ_TRIES", "10"))


def interrupted(argument: str, delay: float) -> tuple[int, str]:
    """Return status and errors of a program that gets SIGINT some seconds after its start."""
    process = subprocess.Popen(
        [sys.executable, "-c", START, argument],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
    )
    assert process.stdout is not None
    assert process.stdout.read(1) == b">"
    timer = threading.Timer(delay, process.send_signal, [signal.SIGINT])
    timer.start()
    _, errors = process.communicate(timeout=60)
    timer.cancel()
    return process.returncode, errors.decode()


@pytest.mark.slow
@pytest.mark.parametrize("argument", ["--help", "doctor", "models"])
def test_start_up_ends_silently(argument: str) -> None:
    chance = random.Random(f"{SEED} {argument}")
    outcomes = [interrupted(argument, chance.uniform(0.002, 0.6)) for _ in range(TRIES)]
    # The last moments of the interpreter have the system's handler, also 130 for a shell.
    silent = ((130, ""), (0, ""), (-signal.SIGINT, ""))
    assert [outcome for outcome in outcomes if outcome not in silent] == []
    assert (130, "") in outcomes


def test_help_does_not_import_numpy() -> None:
    code = (
        "import sys; sys.argv = ['realtime-ssd', '--help']\n"
        "from realtime_ssd.__main__ import main\n"
        "try: main()\n"
        "finally: print([name for name in ('numpy', 'onnx', 'cv2') if name in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=ENVIRONMENT
    )
    assert result.stdout.splitlines()[-1] == "[]"


def test_ignored_signals_stay_ignored() -> None:
    """A background job of a shell without job control ignores SIGINT."""
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", START, "--version"], stdout=subprocess.PIPE, env=ENVIRONMENT
        )
    finally:
        signal.signal(signal.SIGINT, previous)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert (process.returncode, output) == (0, b">" + run("--version").stdout.encode())
