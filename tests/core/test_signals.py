"""Graceful shutdown, and objects that are closed by `with`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from realtime_ssd.core.closeable import Closeable
from realtime_ssd.core.signals import answer_signals, stop_on_signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_first_signal_is_recorded_and_the_second_interrupts(number: int) -> None:
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    seen: list[int] = []
    with stop_on_signals(seen.append) as received:
        assert received() == 0
        signal.raise_signal(number)
        assert received() == number
        assert seen == [number]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    assert seen == [number]
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before


def test_callback_is_optional() -> None:
    with stop_on_signals() as received:
        signal.raise_signal(signal.SIGTERM)
        assert received() == signal.SIGTERM


def test_signal_is_answered_once_while_the_main_thread_is_busy(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with stop_on_signals() as received:
        with answer_signals("stopping"):
            signal.raise_signal(signal.SIGINT)
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
        assert received() == signal.SIGINT
    assert capfd.readouterr().err == "\nstopping\n"
    assert signal.set_wakeup_fd(-1) == -1


def test_answer_comes_before_the_main_thread_returns_from_a_library() -> None:
    script = (
        "import ctypes, sys\n"
        "from realtime_ssd.core.signals import answer_signals, stop_on_signals\n"
        "library = ctypes.CDLL(None)\n"
        "with stop_on_signals(), answer_signals('stopping'):\n"
        "    print('ready', flush=True)\n"
        "    while library.sleep(60):\n"  # interrupted by the signal, and entered again
        "        library.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.stderr.readline() == "\n"
    assert process.stderr.readline() == "stopping\n"
    process.kill()
    process.communicate()


class Resource(Closeable):
    def __init__(self) -> None:
        self.calls: list[str] = []

    def close(self) -> None:
        self.calls.append("close")


def test_with_statement_closes_also_after_an_error() -> None:
    resource = Resource()
    with resource as entered:
        assert entered is resource
        assert resource.calls == []
    with pytest.raises(OSError, match="lost"), resource:
        raise OSError("lost")
    assert resource.calls == ["close", "close"]


def test_answering_ends_while_a_child_process_holds_the_pipe() -> None:
    with answer_signals("stopping"):
        child = os.fork()
        if not child:
            os.read(os.pipe()[0], 1)  # waits until it is killed
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
