"""The command `realtime-ssd`, also `python -m realtime_ssd`: handle Ctrl+C, then import the rest.

An interrupted import ends in a traceback, or in an `ImportError` that hides the interrupt (numpy).
So Ctrl+C during an import ends the process immediately. At other times it raises
`KeyboardInterrupt`.
"""

from __future__ import annotations

# The built-in part of `signal`, whose own import takes time and can be interrupted.
import _signal  # type: ignore[import-not-found]
import os

_INTERRUPTED = 130


def _on_interrupt(_: int, frame: object) -> None:
    """Raise `KeyboardInterrupt`, or exit if a module is being imported."""
    while frame is not None:
        if frame.f_globals.get("__name__") == "importlib._bootstrap":  # type: ignore[attr-defined]
            os._exit(_INTERRUPTED)
        frame = frame.f_back  # type: ignore[attr-defined]
    raise KeyboardInterrupt


def _exit_immediately(_: int, __: object) -> None:
    os._exit(_INTERRUPTED)


def main() -> None:
    """Run the program; Ctrl+C ends it with status 130 and without output at any moment."""
    handles = _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler
    if handles:  # not ignored, as it is in background jobs
        _signal.signal(_signal.SIGINT, _on_interrupt)
    try:
        from realtime_ssd.cli import main as run

        run()
    except KeyboardInterrupt:
        os._exit(_INTERRUPTED)
    finally:
        if handles:  # the interpreter prints an exception during its shutdown
            _signal.signal(_signal.SIGINT, _exit_immediately)


if __name__ == "__main__":
    main()
