"""The look of `--help`: what a value is instead of the type that holds it."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cyclopts.help import DefaultFormatter, HelpPanel
    from rich.console import Console, ConsoleOptions

__all__ = ["HelpFormatter"]

_BY_OPTION = {
    **dict.fromkeys(("--source", "--frames"), "SOURCE"),
    **dict.fromkeys(("--data", "--val"), "DATASET"),
    **dict.fromkeys(("--model", "--reference", "--init"), "MODEL"),
    **dict.fromkeys(("--start", "--end"), "TIME"),
    **dict.fromkeys(("--interval", "--duration", "--wait"), "SECONDS"),
    **dict.fromkeys(("--json", "--video", "--csv", "--coco"), "FILE"),
    **dict.fromkeys(("--classes", "--blur", "--pixelate"), "NAMES"),
    **dict.fromkeys(("--line-width", "--font-size"), "PIXELS"),
    **dict.fromkeys(("--processor", "--annotator", "--observer"), "NAME[:ARGUMENT]"),
    "--camera": "CAMERA",
    "--roi": "X,Y,WIDTH,HEIGHT",
    "--sink": "NAME:TARGET",
    "--score-threshold": "SCORE",
    "--iou-threshold": "IOU",
    "--tile": "WIDTHxHEIGHT",
    "--overlap": "FRACTION",
    "--backend": "NAME",
    "--encoder": "NAME",
    "--precision": "PRECISION",
    "--bitrate": "RATE",
}
_POSITIONAL = {" import ": "[PROTOTXT]"}
"""Optional arguments without an option, by command."""

_BY_TYPE = {"STR": "TEXT", "INT": "N", "FLOAT": "NUMBER", "CHOICE": "CHOICE"}


class HelpFormatter:
    """Formats help as cyclopts does, with words for values and a default for every option.

    cyclopts' own formatter is imported only to show help, because it takes time.
    """

    def __call__(self, console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
        """See `cyclopts.help.protocols.HelpFormatter`."""
        entries = [_readable(entry) for entry in panel.entries]
        _default_formatter()(console, options, panel.copy(entries=entries))

    def render_usage(self, console: Console, options: ConsoleOptions, usage: Any) -> None:
        """See `cyclopts.help.protocols.HelpFormatter`."""
        text = str(usage).replace("[OPTIONS] [ARGS...]", "SOURCE... [OPTIONS]")
        positional = (word for command, word in _POSITIONAL.items() if command in f"{text} ")
        text = text.replace("[ARGS]", next(positional, "[NAME]"))
        for kind, word in _BY_TYPE.items():
            text = text.replace(f" {kind} ", f" {word} ")
        text = text.replace("--data TEXT", "--data DATASET")
        _default_formatter().render_usage(console, options, text)

    def render_description(
        self, console: Console, options: ConsoleOptions, description: Any
    ) -> None:
        """See `cyclopts.help.protocols.HelpFormatter`."""
        _default_formatter().render_description(console, options, description)


@cache
def _default_formatter() -> DefaultFormatter:
    from cyclopts.help import DefaultFormatter

    return DefaultFormatter()


def _readable(entry: Any) -> Any:
    """Return an entry with a word for its value, and no default that is empty."""
    changes: dict[str, Any] = {}
    metavar = getattr(entry, "metavar", None)  # cyclopts 4 has none
    if metavar:
        kind = metavar.removesuffix("...")
        by_option = (_BY_OPTION.get(name) for name in entry.names)
        changes["metavar"] = next(filter(None, by_option), _BY_TYPE.get(kind, kind))
    if entry.default in ("", '""', "''"):
        changes["default"] = None
    if metavar and not entry.required and changes.get("default", entry.default) is None:
        text = getattr(entry.description, "primary_renderable", entry.description)
        if "default" not in str(getattr(text, "markup", text)):
            changes["default"] = "none"
    return entry.copy(**changes) if changes else entry
