"""Reader of Caffe network definitions: the text form of protocol buffers.

Source: the Protocol Buffers text format specification. Every field is kept as a list of values, so
repeated and single fields read alike and no schema is needed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar

from realtime_ssd.core.errors import ModelError

__all__ = ["Message", "parse"]

Scalar: TypeAlias = "str | int | float | bool"
Value: TypeAlias = "Scalar | Message"
Kind = TypeVar("Kind", str, int, float, bool)

_TOKEN = re.compile(
    r"""
    (?P<space>\s+|\#[^\n]*)
    | (?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
    | (?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?[fF]?(?![\w.]))
    | (?P<word>[A-Za-z_][\w.]*)
    | (?P<mark>[{}<>\[\]:;,])
    """,
    re.VERBOSE,
)
_CLOSING = {"{": "}", "<": ">"}
_BOOLEANS = {"true": True, "false": False}


@dataclass(frozen=True, slots=True)
class Message:
    """A block of fields.

    Attributes:
        fields: All values of each field, in the order of the text.
    """

    fields: dict[str, list[Value]] = field(default_factory=dict)

    def message(self, name: str) -> Message:
        """Give the first block of that name, or an empty one."""
        return next(iter(self.messages(name)), Message())

    def messages(self, name: str) -> list[Message]:
        """Give all blocks of that name."""
        return [value for value in self.fields.get(name, ()) if isinstance(value, Message)]

    def texts(self, name: str) -> list[str]:
        """Give all values of a field as text."""
        return [str(value) for value in self.fields.get(name, ())]

    def text(self, name: str, default: str = "") -> str:
        """Give the first value of a field as text."""
        return next(iter(self.texts(name)), default)

    def numbers(self, name: str) -> list[float]:
        """Give all values of a field as numbers.

        Raises:
            ModelError: If one is none.
        """
        found = self.fields.get(name, [])
        numbers = [value for value in found if isinstance(value, int | float)]
        if len(numbers) != len(found):
            raise ModelError(f"the definition's field '{name}' holds {found}, numbers are expected")
        return [float(number) for number in numbers]

    def number(self, name: str, default: float) -> float:
        """Give the first value of a field as a number."""
        return next(iter(self.numbers(name)), default)

    def integer(self, name: str, default: int) -> int:
        """Give the first value of a field as a whole number."""
        return int(self.number(name, default))

    def flag(self, name: str, default: bool) -> bool:
        """Give the first value of a field as true or false."""
        found = self.fields.get(name)
        return bool(found[0]) if found else default


@dataclass(slots=True)
class _Reader:
    tokens: list[tuple[str, str, int]]
    place: int = 0

    def peek(self) -> str:
        return self.tokens[self.place][1] if self.place < len(self.tokens) else ""

    def next(self) -> tuple[str, str]:
        if self.place >= len(self.tokens):
            raise ModelError("the network definition ends in the middle of a block")
        kind, text, _ = self.tokens[self.place]
        self.place += 1
        return kind, text

    def skip(self, *marks: str) -> bool:
        found = bool(self.peek()) and self.peek() in marks
        self.place += found
        return found

    def fail(self) -> ModelError:
        line = self.tokens[self.place - 1][2]
        return ModelError(
            f"line {line} of the network definition is not understood at "
            f"'{self.tokens[self.place - 1][1]}'; give the model's .prototxt file"
        )


def parse(text: str) -> Message:
    """Read a network definition.

    Raises:
        ModelError: If the text is no protocol-buffer text; names the line.

    Example:
        >>> parse('layer { name: "conv1" pad: 1 }').message("layer").integer("pad", 0)
        1
    """
    return _block(_Reader(list(_tokens(text))), "")


def _tokens(text: str) -> Iterator[tuple[str, str, int]]:
    place, line = 0, 1
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise ModelError(
                f"line {line} of the network definition is not understood at "
                f"'{text[place : place + 20].splitlines()[0]}'; give the model's .prototxt file"
            )
        if match.lastgroup != "space":
            yield str(match.lastgroup), match[0], line
        line += match[0].count("\n")
        place = match.end()


def _block(reader: _Reader, closing: str) -> Message:
    """Read fields until a closing mark, or to the end of the text."""
    message = Message()
    while True:
        if not reader.peek() and not closing:
            return message
        kind, name = reader.next()
        if name == closing:
            return message
        if kind != "word":
            raise reader.fail()
        message.fields.setdefault(name, []).extend(_values(reader))
        reader.skip(",", ";")


def _values(reader: _Reader) -> list[Value]:
    """Read what follows a field's name: a block, a value or a list."""
    colon = reader.skip(":")
    if reader.skip("["):
        values: list[Value] = []
        while not reader.skip("]"):
            values.append(_value(reader))
            reader.skip(",")
        return values
    if not colon and reader.peek() not in _CLOSING:
        reader.next()
        raise reader.fail()
    return [_value(reader)]


def _value(reader: _Reader) -> Value:
    kind, text = reader.next()
    if text in _CLOSING:
        return _block(reader, _CLOSING[text])
    if kind == "string":
        return "".join([_plain(text), *_more_strings(reader)])
    if kind == "number":
        digits = text.rstrip("fF")
        return int(digits) if re.fullmatch(r"[-+]?\d+", digits) else float(digits)
    if kind == "word":
        return _BOOLEANS.get(text, text)
    raise reader.fail()


def _more_strings(reader: _Reader) -> Iterator[str]:
    """Read the strings that directly follow a string; they belong to it."""
    while reader.place < len(reader.tokens) and reader.tokens[reader.place][0] == "string":
        yield _plain(reader.next()[1])


def _plain(quoted: str) -> str:
    return re.sub(r"\\(.)", r"\1", quoted[1:-1])
