"""The command `realtime-ssd`: one file a subcommand, each loaded only when it is called."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cyclopts import App

__all__ = ["COMMANDS", "main"]

COMMANDS = {
    "detect": "detect:detect",
    "models": "models:app",
    "doctor": "doctor:doctor",
    "benchmark": "benchmark:benchmark",
    "build": "build:build",
    "engines": "engines:app",
    "train": "train:train",
    "evaluate": "evaluate:evaluate",
    "export": "export:export",
    "import": "import_:import_model",
}
"""Every subcommand and the function or group that does it, as file:name of this package."""


def build_app() -> App:
    """Put the program together; subcommands whose file is missing are not listed."""
    from cyclopts import App

    from realtime_ssd import __version__

    app = App(
        name="realtime-ssd",
        help="Real-time SSD video detection: camera, files and streams, on GPU or CPU.\n\n"
        "Every subcommand takes --debug, which shows where an error came from.",
        version=__version__,
    )
    for name, place in COMMANDS.items():
        module = f"{__name__}.{place.split(':')[0]}"
        if find_spec(module):
            app.command(f"{__name__}.{place}", name=name)
    return app


def spelled_out(words: Sequence[str]) -> list[str]:
    """Put the default subcommand in front where none is named."""
    known = (*COMMANDS, "--help", "-h", "--version")
    return list(words) if not words or words[0] in known else ["detect", *words]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program and leave with its exit status: 2 for wrong usage, 1 for a failure.

    Args:
        arguments: Words of the command line; those the process was started with by default.
    """
    from cyclopts import CycloptsError

    from realtime_ssd.errors import RealtimeSSDError

    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    words = [word for word in given if word != "--debug"]
    try:
        build_app()(spelled_out(words), exit_on_error=False, print_error=False)
    except CycloptsError as error:
        print(f"realtime-ssd: {_one_line(error)}", file=sys.stderr)
        sys.exit(2)
    except RealtimeSSDError as error:
        if debug:
            raise
        print(f"realtime-ssd: {error}", file=sys.stderr)
        sys.exit(error.exit_status)
    except BrokenPipeError:
        # The reader of a pipe left (`| head`); point the stream elsewhere for the last flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
