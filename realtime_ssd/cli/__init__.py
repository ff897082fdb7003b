"""The command `realtime-ssd`: each subcommand is imported only when it is called."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from realtime_ssd.cli.command import Command, commands

if TYPE_CHECKING:
    from cyclopts import App

__all__ = ["build_app", "main"]

_EPILOGUE = "Every command accepts --help, and --debug, which prints the traceback of an error."

# The help is repeated here so that `--help` need not import the modules it describes.
DETECT = Command(
    "realtime_ssd.cli.detect:detect",
    "Detect objects in cameras, videos, streams and photos.",
    0,
    "realtime-ssd demo --output street.mp4",
)
MODELS = Command("realtime_ssd.cli.models:app", "List, pull, add and remove models.", 10)
DOCTOR = Command(
    "realtime_ssd.cli.doctor:doctor",
    "Show what this machine has and is missing.",
    30,
    "realtime-ssd doctor",
)
ZONES = Command(
    "realtime_ssd.cli.zones:zones",
    "Draw zones and lines with the mouse.",
    20,
    "realtime-ssd zones street.mp4 --output zones.toml",
)
EXPLAIN = Command(
    "realtime_ssd.cli.explain:explain",
    "Show why a model detected what it detected in an image.",
    25,
    "realtime-ssd explain photo.jpg --output why.png",
)
BENCHMARK = Command(
    "realtime_ssd.cli.benchmark:benchmark",
    "Measure speed and latency on this machine.",
    40,
    "realtime-ssd benchmark --batch 1,8 --json today.json",
)
COMPLETION = Command(
    "realtime_ssd.cli.completion:completion",
    "Print or install completion for a shell.",
    90,
    "realtime-ssd completion bash --install",
)


def build_app(selected: str = "") -> App:
    """Return the command-line program with all installed subcommands.

    Args:
        selected: Name of the command that will be called: its help is the docstring of its
            function, while the list of commands shows one line each.
    """
    from cyclopts import App

    from realtime_ssd import __version__
    from realtime_ssd.cli.help_format import HelpFormatter

    app = App(
        name="realtime-ssd",
        usage="Usage: realtime-ssd [detect] SOURCE… [OPTIONS]\n"
        "       realtime-ssd COMMAND [OPTIONS]",
        help="Detect objects in live video, files and photos with SSD models, on GPU or CPU.",
        help_epilogue=_EPILOGUE if selected in commands() else _epilogue(DETECT),
        version=__version__,
        help_formatter=HelpFormatter(),
    )
    for number, (name, command) in enumerate(commands().items()):
        line = None if name == selected else command.help
        # Groups of commands have examples of their own.
        more = {"help_epilogue": _epilogue(command)} if command.example else {}
        app.command(command.target, name=name, help=line, sort_key=number, **more)
    return app


def _epilogue(command: Command) -> str:
    return f"Example: {command.example}\n\n{_EPILOGUE}"


_TAKE_HYPHENS = ("--json", "--csv", "--source", "--video", "--camera")
"""Options whose value may begin with a hyphen."""


def with_default_command(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with "detect" in front if they name no subcommand."""
    known = (*commands(), "--help", "-h", "--version")
    if not arguments or (arguments[0] in known and arguments[0] != "detect"):
        return list(arguments)
    sources = arguments[1:] if arguments[0] == "detect" else arguments
    return ["detect", *_without_leading_hyphens(sources)]


def _without_leading_hyphens(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with "-" and names of files like "-a.mp4" written as paths.

    Values of the options that take them are left alone.
    """
    result: list[str] = []
    for number, argument in enumerate(arguments):
        before = arguments[number - 1] if number else ""
        is_value = before in _TAKE_HYPHENS
        if argument == "--" or is_value or not argument.startswith("-"):
            result.append(argument)
        elif argument == "-":
            result.append("/dev/stdin")
        elif not argument.startswith("--") and os.path.lexists(argument):
            result.append(f"./{argument}")
        else:
            result.append(argument)
    return result


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program and exit with its status: 2 for wrong usage, 1 for a failure.

    Args:
        arguments: Arguments of the command line; those of the process by default.
    """
    from realtime_ssd.cli.standard_streams import tolerant_streams

    with tolerant_streams():
        _main(arguments)


def _main(arguments: Sequence[str] | None) -> None:
    from cyclopts import CycloptsError

    from realtime_ssd.cli.scene_options import with_default_tracker
    from realtime_ssd.cli.standard_streams import discard_standard_output
    from realtime_ssd.cli.usage_errors import misspelled_command, usage_message
    from realtime_ssd.core.errors import RealtimeSSDError, for_command_line, redact
    from realtime_ssd.core.printable import printable

    raw = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in raw
    args = [argument for argument in raw if argument != "--debug"]
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(_OptionFormatter())
    if problem := misspelled_command(args):
        print(f"realtime-ssd: {problem}", file=sys.stderr)
        sys.exit(2)
    try:
        arguments = with_default_command(with_default_tracker(args))
        app = build_app(arguments[0] if arguments else "")
        app(arguments, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        message = printable(redact(usage_message(error, args)))
        print(f"realtime-ssd: {message}", file=sys.stderr)
        sys.exit(2)
    except RealtimeSSDError as error:
        _print_traceback(error, debug=debug)
        print(f"realtime-ssd: {for_command_line(str(error))}", file=sys.stderr)
        sys.exit(error.exit_status)
    except BrokenPipeError:
        discard_standard_output()  # the reader of a pipe left (`| head`)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        _print_traceback(error, debug=debug)
        message = printable(redact(_unexpected_message(error)))
        print(f"realtime-ssd: {message}", file=sys.stderr)
        sys.exit(1)


def _print_traceback(error: Exception, *, debug: bool) -> None:
    """Print where an error comes from, without secrets and escapes, if the user wants to know."""
    if not debug:
        return
    import traceback

    from realtime_ssd.core.errors import redact
    from realtime_ssd.core.printable import printable

    for part in traceback.format_exception(error):
        for line in part.rstrip("\n").split("\n"):
            print(printable(redact(line)), file=sys.stderr)


class _OptionFormatter(logging.Formatter):
    """Writes log messages as the command line writes errors."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the message and the traceback without secrets."""
        from realtime_ssd.core.errors import redact

        return redact(super().format(record))

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - a name of `logging`
        """Return the message as one line, with parameters written as options."""
        from realtime_ssd.core.errors import for_command_line, redact
        from realtime_ssd.core.printable import printable

        return for_command_line(printable(redact(super().formatMessage(record))))


def _unexpected_message(error: Exception) -> str:
    from realtime_ssd.core.errors import describe, for_command_line, reached_limit

    limit = reached_limit(error)
    if limit:
        return for_command_line(limit)
    return f"unexpected error: {describe(error)}; use --debug for the traceback"
