"""Zones and lines as text: `NAME:x1,y1,x2,y2,...` in pixels or fractions of the frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from realtime_ssd.core.errors import UsageError
from realtime_ssd.core.printable import printable

__all__ = ["ANCHORS", "Anchor", "Shape", "anchor_points", "parse_shape", "parse_zone_file"]

Anchor = Literal["bottom_center", "center", "top_center"]
"""The point of a box that is inside or outside a zone."""
ANCHORS: tuple[str, ...] = get_args(Anchor)

_ALMOST_FRACTIONS = 2.0
"""Coordinates up to here that are not whole are fractions, not pixels."""

Kind = Literal["zone", "line"]
Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Shape:
    """A named polygon or line.

    Coordinates are fractions of the frame if none is above 1, else pixels.

    Attributes:
        name: Name, unique among all shapes of a run.
        points: Corners of the polygon, or both ends of the line.

    Raises:
        UsageError: If the name is empty, or the shape encloses no area or crosses itself.
    """

    name: str
    points: tuple[Point, ...]

    def __post_init__(self) -> None:
        if len(self.points) < 2:
            raise UsageError(f"'{self.name}' needs 2 ends as a line, or at least 3 corners")
        kind = "line" if len(self.points) == 2 else "zone"
        if self.name != printable(self.name):
            raise UsageError(f"'{self.name}' is not a name: it has control characters")
        if not self.name.strip():
            raise UsageError(f"a {kind} needs a name, as in {_example(kind)}")
        values = np.array(self.points, float)
        if not np.isfinite(values).all() or (values < 0).any():
            raise UsageError(
                f"{kind} '{self.name}' is outside the picture: coordinates must be at least 0"
            )
        if kind == "line":
            if self.points[0] == self.points[1]:
                raise UsageError(f"line '{self.name}' has no length; its ends must differ")
        else:
            _check_polygon(self.name, self.points)

    def to_pixels(self, width: int, height: int) -> NDArray[np.float64]:
        """Return N × 2 corners in pixels of a frame.

        Raises:
            UsageError: If a corner is outside the frame.
        """
        values = np.array(self.points, np.float64)
        size = np.array([width, height], np.float64)
        if values.max() <= 1:
            return values * size
        if values.max() <= _ALMOST_FRACTIONS and (values % 1 > 0).any():
            raise UsageError(
                f"'{self.name}' is outside the picture: fractions of the frame go from 0 to 1"
            )
        if (values > size).any():
            x, y = values[(values > size).any(axis=1)][0].tolist()
            raise UsageError(
                f"'{self.name}' has the corner {x:g},{y:g} outside the picture, which is "
                f"{width}x{height}; use pixels of the frame, or fractions from 0 to 1"
            )
        return values


def parse_shape(text: str, kind: Kind) -> Shape:
    """Return the shape that a text describes.

    Args:
        text: `NAME:x1,y1,x2,y2,...`; a zone has at least 3 corners and a line 2 ends.
        kind: "zone" or "line".

    Raises:
        UsageError: If the text is malformed or the shape is impossible.

    Example:
        >>> parse_shape("gate:0.1,0.5,0.9,0.5", "line")
        Shape(name='gate', points=((0.1, 0.5), (0.9, 0.5)))
    """
    name, separator, numbers = text.rpartition(":")
    try:
        values = [float(number) for number in numbers.split(",")]
    except ValueError:
        values = []
    if not separator or len(values) < 4 or len(values) % 2:
        raise UsageError(f"'{text}' is not a {kind}; write {_example(kind)}")
    points = tuple(zip(values[::2], values[1::2], strict=True))
    return _shape(name, points, kind)


def parse_zone_file(content: dict[str, Any], path: str) -> tuple[list[Shape], list[Shape]]:
    """Return the zones and lines of a TOML file.

    Args:
        content: The parsed file: tables `zones` and `lines` with a list of [x, y] under each name.
        path: Its name, for messages.

    Raises:
        UsageError: If the content is not of this form.
    """
    unknown = set(content) - {"zones", "lines"}
    if unknown:
        raise UsageError(
            f"'{path}' has the unexpected key '{sorted(unknown)[0]}'; use [zones] and [lines]"
        )
    return _shapes(content, path, "zone"), _shapes(content, path, "line")


def anchor_points(boxes: NDArray[np.float32], anchor: Anchor) -> NDArray[np.float64]:
    """Return one point of each box.

    Args:
        boxes: N × 4, x1, y1, x2, y2.
        anchor: Which point.

    Returns:
        N × 2 float64, x and y.
    """
    x1, y1, x2, y2 = boxes.astype(np.float64).reshape(-1, 4).T
    y = {"bottom_center": y2, "top_center": y1, "center": (y1 + y2) / 2}[anchor]
    return np.stack([(x1 + x2) / 2, y], axis=1)


def _shapes(content: dict[str, Any], path: str, kind: Kind) -> list[Shape]:
    table = content.get(f"{kind}s", {})
    shapes = []
    for name, corners in table.items() if isinstance(table, dict) else ():
        try:
            points = tuple((float(x), float(y)) for x, y in corners)
        except (TypeError, ValueError):
            raise UsageError(
                f"'{path}': {kind} '{name}' must be a list of [x, y], not {corners!r}"
            ) from None
        shapes.append(_shape(name, points, kind))
    if not isinstance(table, dict):
        raise UsageError(f"'{path}': `{kind}s` must be a table with a list of [x, y] per name")
    return shapes


def _shape(name: str, points: Sequence[Point], kind: Kind) -> Shape:
    if kind == "line" and len(points) != 2:
        raise UsageError(f"line '{name}' has {len(points)} points; write {_example(kind)}")
    if kind == "zone" and len(points) < 3:
        raise UsageError(f"zone '{name}' has {len(points)} corners; it needs at least 3")
    return Shape(name, tuple(points))


def _example(kind: str) -> str:
    if kind == "line":
        return "NAME:x1,y1,x2,y2, as in gate:0.1,0.5,0.9,0.5"
    return "NAME:x1,y1,x2,y2,x3,y3,..., as in door:0.1,0.2,0.4,0.2,0.4,0.9"


def _check_polygon(name: str, points: Sequence[Point]) -> None:
    edges = list(zip(points, [*points[1:], points[0]], strict=True))
    if any(start == end for start, end in edges):
        raise UsageError(f"zone '{name}' has the same corner twice in a row; remove one")
    for (i, first), (j, second) in combinations(enumerate(edges), 2):
        neighbors = j - i == 1 or (i == 0 and j == len(edges) - 1)
        if not neighbors and segments_cross(*first, *second):
            raise UsageError(f"zone '{name}' crosses itself; list its corners in order around it")
    area = sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in edges) / 2
    if abs(area) < 1e-9:
        raise UsageError(f"zone '{name}' has no area; its corners are on one line")


def side_of(start: Point, end: Point, point: Point) -> float:
    """Return a positive number on one side of a directed line, negative on the other, 0 on it."""
    return (end[0] - start[0]) * (point[1] - start[1]) - (end[1] - start[1]) * (point[0] - start[0])


def segments_cross(a: Point, b: Point, c: Point, d: Point) -> bool:
    """Return whether the segments a–b and c–d have a point in common."""
    first, second = side_of(c, d, a), side_of(c, d, b)
    third, fourth = side_of(a, b, c), side_of(a, b, d)
    if first == second == third == fourth == 0:  # on one line: compare the extents
        return max(min(a, b), min(c, d)) <= min(max(a, b), max(c, d))
    return first * second <= 0 and third * fourth <= 0
