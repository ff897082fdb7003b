"""One sentence about a wrong command line, with what was probably meant."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING

from realtime_ssd.cli.command import commands

if TYPE_CHECKING:
    from cyclopts import Argument, CycloptsError, MissingArgumentError

__all__ = ["misspelled_command", "usage_message"]

_SIZE = "the model file determines the input size"
_OTHER_NAMES = {
    "-c": ("--classes",),
    "-i": ("--source",),
    "-m": ("--model",),
    "-o": ("--output",),
    "-s": ("--source",),
    "-t": ("--score-threshold",),
    "-v": ("--video",),
    "-w": ("--model", "--init"),
    "--agnostic": ("--agnostic-nms",),
    "--batch-size": ("--batch",),
    "--bs": ("--batch",),
    "--cam": ("--camera",),
    "--checkpoint": ("--model", "--init"),
    "--ckpt": ("--model", "--init"),
    "--class": ("--classes",),
    "--conf": ("--score-threshold",),
    "--conf-thres": ("--score-threshold",),
    "--conf-threshold": ("--score-threshold",),
    "--conf-thresh": ("--score-threshold",),
    "--confidence": ("--score-threshold",),
    "--confidence-threshold": ("--score-threshold",),
    "--cfg": ("--recipe",),
    "--config": ("--recipe",),
    "--dataset": ("--data",),
    "--display": ("--show",),
    "--engine": ("--model", "--output"),
    "--exist-ok": ("--overwrite",),
    "--file": ("--source", "--video"),
    "--force": ("--overwrite",),
    "--format": ("--output",),
    "--fp16": ("--precision",),
    "--gpu": ("--device", "--backend"),
    "--gpus": ("--device", "--backend"),
    "--half": ("--precision",),
    "--hide-conf": ("--hide-scores",),
    "--hide-labels": ("--labels",),
    "--image": ("--source", "--photos"),
    "--img": ("--source",),
    "--in": ("--source",),
    "--input": ("--source", "--data"),
    "--int8": ("--precision",),
    "--iou": ("--iou-threshold",),
    "--iou-thres": ("--iou-threshold",),
    "--iou-thresh": ("--iou-threshold",),
    "--learning-rate": ("--lr",),
    "--line-thickness": ("--line-width",),
    "--lr0": ("--lr",),
    "--model": ("--init", "--checkpoint"),
    "--names": ("--labels", "--classes"),
    "--nms": ("--iou-threshold",),
    "--nms-threshold": ("--iou-threshold",),
    "--nms-thresh": ("--iou-threshold",),
    "--onnx": ("--model", "--output"),
    "--out": ("--output",),
    "--outdir": ("--output",),
    "--output-dir": ("--output",),
    "--pretrained": ("--init", "--backbone"),
    "--project": ("--output",),
    "--save": ("--output",),
    "--save-conf": ("--json",),
    "--save-crop": ("--save-crops", "--output"),
    "--save-dir": ("--output",),
    "--save-json": ("--json", "--coco"),
    "--save-path": ("--output",),
    "--save-txt": ("--yolo", "--json"),
    "--save-vid": ("--output",),
    "--score": ("--score-threshold",),
    "--score-thr": ("--score-threshold",),
    "--show-vid": ("--show",),
    "--stream": ("--source",),
    "--thr": ("--score-threshold",),
    "--thresh": ("--score-threshold",),
    "--threshold": ("--score-threshold",),
    "--topk": ("--pre-nms-top-k",),
    "--tracker": ("--track",),
    "--url": ("--source",),
    "--vid-stride": ("--frame-step",),
    "--view-img": ("--show",),
    "--visualize": ("--show",),
    "--webcam": ("--camera",),
    "--weight": ("--model", "--init"),
    "--weights": ("--model", "--init", "--checkpoint"),
}
"""Options of other programs, and those of this one in the order of likelihood."""

_NUMBERS: dict[object, str] = {int: "a whole number", float: "a number"}
_REMARKS = {
    **dict.fromkeys(("--imgsz", "--img-size", "--image-size", "--input-size"), _SIZE),
    "--max-det": "the model file determines how many detections are kept",
}
"""What to know about options of other programs that have no counterpart here."""


_OTHER_COMMANDS = {
    "add": "models add",
    "bench": "benchmark",
    "convert": "import",
    "download": "models pull",
    "eval": "evaluate",
    "fit": "train",
    "help": "--help",
    "info": "models info",
    "infer": "detect",
    "list": "models list",
    "predict": "detect",
    "pull": "models pull",
    "remove": "models remove",
    "run": "detect",
    "track": "detect --track",
    "val": "evaluate",
    "version": "--version",
}
"""Commands of other programs, and what they are here."""


def usage_message(error: CycloptsError, args: Sequence[str]) -> str:
    """Return one sentence about a wrong command line.

    Args:
        error: What was raised for it.
        args: The arguments of the user.
    """
    from cyclopts import (
        CoercionError,
        MissingArgumentError,
        UnknownCommandError,
        UnknownOptionError,
        UnusedCliTokensError,
    )

    chain = list(error.command_chain or ())
    if isinstance(error, UnknownOptionError):
        written = (error.token.keyword or error.token.value or "").partition("=")[0]
        known = [name for argument in error.argument_collection for name in argument.names]
        return _unknown_option(written, known, chain)
    if isinstance(error, UnknownCommandError | UnusedCliTokensError):
        return _unexpected_argument(error, chain or ["detect"])
    if isinstance(error, MissingArgumentError):
        return _missing_argument(error, chain, args)
    if isinstance(error, CoercionError) and error.target_type in _NUMBERS and error.token:
        kind = _NUMBERS[error.target_type]
        return f"{error.token.keyword or 'the value'} must be {kind}, not '{error.token.value}'"
    return " ".join(str(error).split()).replace('Command "detect" parameter ', "")


def _missing_argument(
    error: MissingArgumentError, chain: Sequence[str], args: Sequence[str]
) -> str:
    names = error.argument.names if error.argument else ()
    option = error.keyword or next(iter(names), "an argument")
    if any(argument.partition("=")[0] in names for argument in args):
        return f"{option} requires a value"
    known = [name for one in _arguments(error) for name in one.names]
    for argument in args if known else ():  # reported first, as the other may be a consequence
        written = argument.partition("=")[0]
        if written.startswith("--") and written.replace("_", "-") not in known:
            return _unknown_option(written, known, chain)
    command = " ".join(chain) or "detect"
    return f"{command} requires {option}; see realtime-ssd {command} --help"


def misspelled_command(args: Sequence[str]) -> str:
    """Return a sentence if the first argument was meant as a command; else an empty string.

    Args:
        args: The arguments of the user.
    """
    word = args[0] if args else ""
    lower = word.lower()
    is_word = word.replace("-", "").isalpha() and not word.startswith("-")
    if not is_word or word in commands() or os.path.lexists(word):
        return ""
    close = get_close_matches(lower, commands(), n=1, cutoff=0.7)
    meant = _OTHER_COMMANDS.get(lower) or (close[0] if close else "")
    return f"there is no command '{word}'; did you mean 'realtime-ssd {meant}'" if meant else ""


def _unknown_option(written: str, known: Sequence[str], chain: Sequence[str]) -> str:
    option = written.replace("_", "-")
    if option.startswith("-") and not option.startswith("--") and len(option) > 2:
        option = f"-{option}"
    command = " ".join(chain) or "detect"
    message = f"{command} has no option {written}"
    if option in _REMARKS:
        return f"{message}; {_REMARKS[option]}"
    meant = _meant_option(option, known)
    if meant:
        return f"{message}; did you mean {meant}"
    return f"{message}; see realtime-ssd {command} --help"


def _meant_option(option: str, known: Sequence[str]) -> str:
    """Return the option of this program that was probably meant, or an empty string."""
    known = [*known, "--help"]
    candidates: Iterable[str] = (option, *_OTHER_NAMES.get(option, ()))
    for candidate in candidates:
        if candidate in known:
            return candidate
    if option.startswith("--"):
        extended = [name for name in known if name.startswith(option)]
        close = extended or get_close_matches(option, known, n=1, cutoff=0.75)
        return close[0] if close else ""
    return ""


def _arguments(error: CycloptsError) -> Iterable[Argument]:
    """Return the arguments of the command that was called, as far as they are known."""
    return error.app.assemble_argument_collection() if error.app else ()


def _unexpected_argument(error: CycloptsError, chain: list[str]) -> str:
    unexpected = (error.unused_tokens or [""])[0]
    command = " ".join(chain)
    names = [name for name in _subcommands(error) if not name.startswith("-")]
    close = get_close_matches(unexpected, names, n=1, cutoff=0.6)
    if close:
        return f"there is no command '{command} {unexpected}'; did you mean '{command} {close[0]}'"
    return f"unexpected argument '{unexpected}'; see realtime-ssd {command} --help"


def _subcommands(error: CycloptsError) -> list[str]:
    """Return the names of the commands below the one that was called."""
    try:
        return list(error.app or ())
    except TypeError:
        return []
