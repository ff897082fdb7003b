"""The command `realtime-ssd`: one file a subcommand, each loaded only when it is called."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING

from realtime_ssd.cli.registry import Command, commands

if TYPE_CHECKING:
    from cyclopts import App, CycloptsError

__all__ = ["build_app", "main"]

# The help is repeated here so that `--help` need not import the modules it describes.
DETECT = Command(
    "realtime_ssd.cli.detect:detect", "Find objects in cameras, video files, streams and photos.", 0
)
MODELS = Command("realtime_ssd.cli.models:app", "List installed models and pull official ones.", 10)
DOCTOR = Command("realtime_ssd.cli.doctor:doctor", "Show what this machine has and is missing.", 30)
BENCHMARK = Command(
    "realtime_ssd.cli.benchmark:benchmark", "Measure speed and latency on this machine.", 40
)


def build_app() -> App:
    """Return the command-line program with all installed subcommands."""
    from cyclopts import App

    from realtime_ssd import __version__

    app = App(
        name="realtime-ssd",
        usage="Usage: realtime-ssd [detect] --camera N | --video FILE | --source SPEC [OPTIONS]\n"
        "       realtime-ssd COMMAND [OPTIONS]",
        help="Find objects in live video, files and photos with SSD models, on GPU or CPU.",
        help_epilogue="Try: realtime-ssd --source demo --output street.mp4\n\n"
        "Every command takes --help, and --debug, which shows where an error came from.",
        version=__version__,
    )
    for number, (name, command) in enumerate(commands().items()):
        app.command(command.target, name=name, help=command.help, sort_key=number)
    return app


def spelled_out(words: Sequence[str]) -> list[str]:
    """Put the default subcommand in front where none is named."""
    known = (*commands(), "--help", "-h", "--version")
    return list(words) if not words or words[0] in known else ["detect", *words]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program and leave with its exit status: 2 for wrong usage, 1 for a failure.

    Args:
        arguments: Words of the command line; those the process was started with by default.
    """
    from cyclopts import CycloptsError

    from realtime_ssd.core.errors import RealtimeSSDError, for_command_line, redact

    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    words = [word for word in given if word != "--debug"]
    try:
        build_app()(spelled_out(words), exit_on_error=False, print_error=False)
    except CycloptsError as error:
        print(f"realtime-ssd: {redact(_sentence(error, words))}", file=sys.stderr)
        sys.exit(2)
    except RealtimeSSDError as error:
        if debug:
            raise
        print(f"realtime-ssd: {for_command_line(str(error))}", file=sys.stderr)
        sys.exit(error.exit_status)
    except BrokenPipeError:
        # The reader of a pipe left (`| head`); point the stream elsewhere for the last flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if debug:
            raise
        print(f"realtime-ssd: {for_command_line(redact(_unforeseen(error)))}", file=sys.stderr)
        sys.exit(1)


def _unforeseen(error: Exception) -> str:
    """Say what is known of an error that should have been foreseen."""
    from realtime_ssd.core.errors import describe

    if isinstance(error, MemoryError):
        return describe(error)
    return f"unforeseen {describe(error)}; --debug shows where it came from"


def _sentence(error: CycloptsError, words: Sequence[str]) -> str:
    """Say what is wrong with a command line."""
    from cyclopts import UnusedCliTokensError

    if not isinstance(error, UnusedCliTokensError):
        return " ".join(str(error).split()).replace('Command "detect" parameter ', "")
    extra = (error.unused_tokens or [""])[0]
    if extra == words[0] and "/" not in extra and "." not in extra:
        close = get_close_matches(extra, commands(), n=1)
        hint = f"did you mean '{close[0]}'" if close else "see realtime-ssd --help"
        return f"there is no command '{extra}'; {hint}"
    if words[0] in commands() and words[0] != "detect":
        return f"'{extra}' is one word too many; see realtime-ssd {words[0]} --help"
    return f"'{extra}' belongs to no option; name each source with --source, as in --source {extra}"
