"""Typed decoding of JSON from files that somebody else wrote, with limits for every field.

A rule takes the name of a field and its JSON value, and returns the value or raises `FieldError`.
`SPEC` is the table of all fields of a specification (`realtime_ssd.core.spec`, format 1).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from typing import Any

from realtime_ssd.core.printable import printable

__all__ = [
    "MAX_BOXES",
    "MAX_INPUT_PIXELS",
    "MAX_TEXT",
    "SPEC",
    "FieldError",
    "array",
    "boolean",
    "integer",
    "nullable",
    "number",
    "one_of",
    "parse_json",
    "parse_object",
    "record",
    "text",
]

Rule = Callable[[str, Any], Any]

MAX_TEXT = 4 * 2**20
"""Characters of a JSON text; enough for 190,000 boxes that are listed one by one."""
MAX_BOXES = 1_000_000
"""Default boxes of a model; the largest published SSDs have about 200,000."""
MAX_INPUT_PIXELS = 2**24
"""Pixels of a network's input, for example 4096 × 4096."""
_MAX_SIDE = 8192
_MAX_LABELS = 65_536
_SHOWN = 40


class FieldError(ValueError):
    """A value that its rule rejects; the message is a clause that names the field."""


def parse_object(content: str, longest: int = MAX_TEXT) -> dict[str, Any]:
    """Return the JSON object of a text.

    Args:
        content: JSON text.
        longest: Characters that the text may have.

    Raises:
        FieldError: If the text is too long, nested too deeply, or is not a JSON object.
    """
    data = parse_json(content, longest)
    if not isinstance(data, dict):
        raise FieldError(f"it must be a JSON object, not {_shown(data)}")
    return data


def parse_json(content: str, longest: int = MAX_TEXT) -> Any:
    """Return the value of a JSON text.

    Args:
        content: JSON text.
        longest: Characters that the text may have.

    Raises:
        FieldError: If the text is too long, nested too deeply, or is not JSON.
    """
    if len(content) > longest:
        raise FieldError(f"its text has {len(content)} characters, at most {longest} are read")
    try:
        return json.loads(content)
    except RecursionError:
        raise FieldError("its text is nested too deeply") from None
    except ValueError:
        raise FieldError("its text is not JSON") from None


def integer(low: int, high: int) -> Rule:
    """Return a rule for integers from `low` to `high`."""

    def check(name: str, value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            raise _error(name, f"an integer from {low} to {high}", value)
        return value

    return check


def number(low: float, high: float, *, or_zero: bool = False) -> Rule:
    """Return a rule for finite numbers from `low` to `high`; with `or_zero` also 0."""
    expected = f"{'0 or ' if or_zero else ''}a number from {low:g} to {high:g}"

    def check(name: str, value: Any) -> float:
        if type(value) not in (int, float) or not (low <= value <= high or (or_zero and not value)):
            raise _error(name, expected, value)
        return value  # type: ignore[no-any-return]

    return check


def boolean(name: str, value: Any) -> bool:
    """Return a boolean; a rule."""
    if not isinstance(value, bool):
        raise _error(name, "true or false", value)
    return value


def text(longest: int, shortest: int = 0) -> Rule:
    """Return a rule for one line of text, of `shortest` to `longest` characters."""

    def check(name: str, value: Any) -> str:
        if not isinstance(value, str) or not shortest <= len(value) <= longest:
            raise _error(name, f"text of {shortest} to {longest} characters", value)
        if printable(value, len(value)) != value:
            raise _error(name, "text without control characters", value)
        return value

    return check


def one_of(*choices: str) -> Rule:
    """Return a rule for one of a few words."""

    def check(name: str, value: Any) -> str:
        if not isinstance(value, str) or value not in choices:
            raise _error(name, f"{', '.join(choices[:-1])} or {choices[-1]}", value)
        return value

    return check


def nullable(rule: Rule) -> Rule:
    """Return a rule that also accepts null."""
    return lambda name, value: None if value is None else rule(name, value)


def array(item: Rule, shortest: int, longest: int) -> Rule:
    """Return a rule for arrays of `shortest` to `longest` items, which become tuples."""
    length = f"{shortest}" if shortest == longest else f"{shortest} to {longest}"

    def check(name: str, value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list) or not shortest <= len(value) <= longest:
            raise _error(name, f"an array of {length} items", value)
        return tuple(item(f"{name}[{index}]", entry) for index, entry in enumerate(value))

    return check


def record(fields: Mapping[str, Rule], optional: frozenset[str] = frozenset()) -> Rule:
    """Return a rule for objects with exactly these fields, some of which may be missing."""

    def check(name: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise _error(name, "an object", value)
        prefix = f"{name}." if name else ""
        for key in value:
            if key not in fields:
                raise FieldError(f"field '{prefix}{_plain(key)}' is unknown")
        for key in fields:
            if key not in value and key not in optional:
                raise FieldError(f"field '{prefix}{key}' is missing")
        return {key: fields[key](prefix + key, entry) for key, entry in value.items()}

    return check


def _error(name: str, expected: str, value: Any) -> FieldError:
    return FieldError(f"field '{name}' must be {expected}, not {_shown(value)}")


def _shown(value: Any) -> str:
    """Return a short description of a JSON value, whatever it contains."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return f"an array of {len(value)}"
    if isinstance(value, str):
        return f'"{_plain(value)}"' if len(value) <= _SHOWN else f"text of {len(value)} characters"
    if isinstance(value, int) and abs(value) >= 10**_SHOWN:
        return "an integer with many digits"
    return json.dumps(value)


def _plain(value: str) -> str:
    """Return the beginning of a text in printable ASCII without quotes and backticks."""
    escaped = json.dumps(value[:_SHOWN])[1:-1]
    return escaped.replace("`", "\\u0060").replace("'", "\\u0027")


def _explicit_boxes(name: str, value: Any) -> str:
    """Return base64 of P × 4 float32 boxes (cx, cy, w, h); a rule."""
    import numpy as np

    encoded: str = text(MAX_TEXT)(name, value)
    try:
        data = base64.b64decode(encoded, validate=True)
    except ValueError:
        raise FieldError(f"field '{name}' must be base64 text") from None
    if len(data) % 16 or len(data) // 16 > MAX_BOXES:
        raise FieldError(
            f"field '{name}' must contain 16 bytes for each of at most {MAX_BOXES} boxes, not "
            f"{len(data)} bytes"
        )
    boxes = np.frombuffer(data, "<f4").reshape(-1, 4)
    with np.errstate(invalid="ignore"):
        valid = (np.abs(boxes) <= 100).all() and (boxes[:, 2:] >= 0).all()
    if not valid:
        raise FieldError(f"field '{name}' must contain finite boxes with sizes of 0 to 100")
    return encoded


def _boxes(name: str, value: Any) -> dict[str, Any]:
    checked: dict[str, Any] = _BOXES(name, value)
    count = sum(
        layer["rows"] * layer["columns"] * len(layer["sizes"]) for layer in checked["layers"]
    )
    if count > MAX_BOXES:
        raise FieldError(f"field '{name}' describes {count} default boxes, more than {MAX_BOXES}")
    return checked


def _input(name: str, value: Any) -> dict[str, Any]:
    checked: dict[str, Any] = _INPUT(name, value)
    width, height = checked["width"], checked["height"]
    if width * height > MAX_INPUT_PIXELS:
        raise FieldError(
            f"field '{name}' describes an input of {width}x{height}, more than "
            f"{MAX_INPUT_PIXELS} pixels"
        )
    return checked


_NAME = text(256, shortest=1)
_FRACTION = number(0, 1)
_POSITIVE = number(1e-6, 100)
_INPUT = record(
    {
        "width": integer(1, _MAX_SIDE),
        "height": integer(1, _MAX_SIDE),
        "channels": one_of("RGB", "BGR"),
        "mean": array(number(-1e6, 1e6), 3, 3),
        "scale": array(number(1e-9, 1e6), 3, 3),
        "resize": one_of("warp", "letterbox"),
        "fill": integer(0, 255),
        "name": _NAME,
    },
    frozenset({"channels", "resize", "fill", "name"}),
)
_LAYER = record(
    {
        "rows": integer(1, 4096),
        "columns": integer(1, 4096),
        "step_y": _POSITIVE,
        "step_x": _POSITIVE,
        "sizes": array(array(_POSITIVE, 2, 2), 1, 256),
        "offset": number(-100, 100),
    },
    frozenset({"offset"}),
)
_BOXES = record(
    {
        "layers": array(_LAYER, 0, 64),
        "clip": boolean,
        "clamp": boolean,
        "rounding": number(1e-6, 1, or_zero=True),
        "explicit": _explicit_boxes,
    },
    frozenset({"clip", "clamp", "rounding", "explicit"}),
)
_THRESHOLDS = record(
    {
        "score": _FRACTION,
        "nms": _FRACTION,
        "top_k": integer(1, MAX_BOXES),
        "keep": integer(1, MAX_BOXES),
    },
    frozenset({"score", "nms", "top_k", "keep"}),
)
SPEC = record(
    {
        "name": _NAME,
        "input": _input,
        "boxes": _boxes,
        "labels": array(text(256), 1, _MAX_LABELS),
        "variances": array(_POSITIVE, 4, 4),
        "coding": one_of("xywh", "yxhw", "corners"),
        "activation": one_of("softmax", "sigmoid", "none"),
        "background": nullable(integer(0, _MAX_LABELS - 1)),
        "clip_before_nms": boolean,
        "scores_output": _NAME,
        "offsets_output": _NAME,
        "thresholds": _THRESHOLDS,
        "description": text(4096),
    },
    frozenset(
        {
            "coding",
            "activation",
            "background",
            "clip_before_nms",
            "scores_output",
            "offsets_output",
            "description",
        }
    ),
)
"""All fields of a specification of format 1, without "format"."""
