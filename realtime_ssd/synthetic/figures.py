"""People and cyclists: limbs as rounded strokes that walk and pedal."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from realtime_ssd.core.frames import Image
from realtime_ssd.synthetic.camera import NEAR, Array, View
from realtime_ssd.synthetic.light import Light
from realtime_ssd.synthetic.shapes import SHIFT, Outline, bounds_of, fixed

__all__ = ["Figure", "FigureSketch", "Person", "Rider"]

Colour = tuple[int, int, int]

_SKINS: tuple[Colour, ...] = ((150, 182, 224), (122, 156, 206), (84, 116, 168), (56, 80, 122))
_HAIRS: tuple[Colour, ...] = ((30, 34, 40), (36, 56, 84), (70, 110, 150), (120, 124, 128))
_TOPS: tuple[Colour, ...] = (
    (52, 52, 200), (196, 120, 50), (70, 160, 70), (60, 190, 235), (225, 225, 225), (60, 60, 64),
    (150, 70, 130), (160, 160, 60), (40, 120, 230), (130, 110, 180),
)  # fmt: skip
_LEGS: tuple[Colour, ...] = (
    (96, 66, 42), (50, 46, 44), (70, 90, 110), (120, 128, 134), (140, 96, 60), (44, 60, 74),
)  # fmt: skip
_CAP = 5
_ROUND = np.linspace(0, math.pi, _CAP)
_COS, _SIN = np.cos(_ROUND)[:, None], np.sin(_ROUND)[:, None]
_SIDEWAYS, _QUARTER = np.array([1.0, 0.0]), np.array([-1.0, 1.0])
_PLAIN = 0.06
_SIDES = (np.array([[0.92], [1.0]]), np.array([[0.18], [0.6]]))
_NARROW = np.array([0.66, 0.9])
_CIRCLE = np.linspace(0, 2 * math.pi, 20, endpoint=False)


def _any(rng: np.random.Generator, options: tuple[Colour, ...]) -> Colour:
    return options[int(rng.integers(len(options)))]


@dataclass(frozen=True, slots=True, eq=False)
class Figure:
    """Rounded strokes and rings in the world.

    Attributes:
        ends: 2 × N × 3, both ends of each stroke in metres.
        radii: 2 × N, radius at both ends.
        colours: N × 3, blue, green, red.
        rings: M × 20 × 2 × 3, outer and inner edge of each wheel, or None.
    """

    ends: Array
    radii: Array
    colours: Array
    rings: Array | None = None

    def sketch(self, view: View) -> FigureSketch | None:
        """Project for one picture; None if any of it is behind the near plane."""
        count = self.ends.shape[1]
        seen = view.camera.see(self.ends.reshape(-1, 3))
        depth = seen[:, 2].reshape(2, count)
        if depth.min() < NEAR:
            return None
        first, last = view.pixels(seen).reshape(2, count, 2)
        reach = self.radii * (view.scale / depth)
        strokes = _capsules(first, last, reach)
        outline: Outline = list(strokes.astype(np.float32))
        corners, rings = strokes.reshape(-1, 2), None
        if self.rings is not None:
            flat = view.project(self.rings.reshape(-1, 3))
            rings = flat.reshape(len(self.rings), -1, 2, 2)
            corners = np.concatenate([corners, flat])
            outline += [
                cv2.convexHull(ring[:, 0].astype(np.float32)).reshape(-1, 2) for ring in rings
            ]
        means = ((depth[0] + depth[1]) / 2, (reach[0] + reach[1]) / 2)
        return FigureSketch(self, view, strokes, *means, rings, outline, bounds_of(corners))


@dataclass(frozen=True, slots=True, eq=False)
class FigureSketch:
    """A `Figure` projected for one picture.

    Attributes:
        figure: The figure.
        view: The projection.
        strokes: N × 10 × 2, the strokes as polygons in pixels.
        depth: Distance of each stroke in metres.
        reach: Mean radius of each stroke in pixels.
        rings: M × 20 × 2 × 2, outer and inner edge of each wheel in pixels, or None.
        outline: Silhouette: a polygon a stroke and a filled disc a ring.
        bounds: x1, y1, x2, y2 of the silhouette in pixels.
    """

    figure: Figure
    view: View
    strokes: Array
    depth: Array
    reach: Array
    rings: Array | None
    outline: Outline
    bounds: Array

    def paint(self, image: Image, light: Light, hidden: float = 0.0) -> None:
        """Paint rings, then strokes from far to near, each with a lit side."""
        distance = float(self.depth[0])
        if self.rings is not None:
            tyre = light.fade(np.array([[34.0, 32, 32]]) * light.ambient, distance, hidden)
            for ring in fixed(self.rings):
                edges = [np.ascontiguousarray(ring[:, k]) for k in (0, 1)]
                cv2.fillPoly(image, edges, tyre[0].tolist(), cv2.LINE_AA, SHIFT)
        shades = light.ambient * _SIDES[0] + light.sun * _SIDES[1]
        tones = np.minimum(self.figure.colours * shades[:, None], 255)
        dark, lit = light.fade(tones, distance, hidden).tolist()
        order = np.argsort(-self.depth, kind="stable").tolist()
        outer = fixed(self.strokes)
        if self.bounds[3] - self.bounds[1] < _PLAIN * image.shape[0]:
            for k in order:
                cv2.fillConvexPoly(image, outer[k], lit[k], cv2.LINE_AA, SHIFT)
            return
        side = float(self.view.camera.rotation[0] @ light.direction)
        centre = self.strokes.mean(axis=1, keepdims=True)
        inner = (self.strokes - centre) * _NARROW + centre
        inner[:, :, 0] += 0.28 * side * self.reach[:, None]
        core = fixed(inner)
        for k in order:
            cv2.fillConvexPoly(image, outer[k], dark[k], cv2.LINE_AA, SHIFT)
            cv2.fillConvexPoly(image, core[k], lit[k], cv2.LINE_AA, SHIFT)


def _capsules(first: Array, last: Array, reach: Array) -> Array:
    """Polygons N × 10 × 2 around N strokes with radii 2 × N, all in pixels."""
    along = last - first
    length = np.hypot(along[:, 0], along[:, 1])[:, None]
    along = np.where(length > 1e-9, along / np.maximum(length, 1e-9), _SIDEWAYS)
    across = along[:, ::-1] * _QUARTER
    fan = _COS * across[:, None] + _SIN * along[:, None]
    high = last[:, None] + fan * reach[1][:, None, None]
    low = first[:, None] - fan * reach[0][:, None, None]
    return np.concatenate([high, low], axis=1)


Point = tuple[float, float, float]
Stroke = tuple[Point, Point, float, float, Colour]


def _place(strokes: list[Stroke], position: Array, turn: Array) -> tuple[Array, Array, Array]:
    ends = np.array([[s[0] for s in strokes], [s[1] for s in strokes]]) @ turn.T + position
    radii = np.array([[s[2] for s in strokes], [s[3] for s in strokes]])
    return ends, radii, np.array([s[4] for s in strokes], np.float64)


def _joint(start: Point, length: float, angle: float) -> Point:
    """End of a limb hanging from `start`, swung forward by an angle."""
    x, y, z = start
    return (x, y - length * math.cos(angle), z + length * math.sin(angle))


def _off(start: Point, x: float, y: float, z: float) -> Point:
    return (start[0] + x, start[1] + y, start[2] + z)


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody on foot.

    Attributes:
        height: In metres.
        build: Factor on the width of the body.
        stride: Swing of the legs in radians; small for somebody who stands.
        top: Colour of the jacket.
        legs: Colour of the trousers.
        skin: Colour of the skin.
        hair: Colour of the hair.
        dress: Whether a skirt or a long coat hangs over the legs.
        bag: Whether a bag hangs on the back.
    """

    height: float
    build: float
    stride: float
    top: Colour
    legs: Colour
    skin: Colour
    hair: Colour
    dress: bool
    bag: bool

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Person:
        """Draw somebody."""
        height = rng.uniform(1.58, 1.92) if rng.random() < 0.92 else rng.uniform(1.2, 1.4)
        colours = (_any(rng, _TOPS), _any(rng, _LEGS), _any(rng, _SKINS), _any(rng, _HAIRS))
        traits = (bool(rng.random() < 0.25), bool(rng.random() < 0.3))
        return cls(height, rng.uniform(0.92, 1.15), rng.uniform(0.42, 0.56), *colours, *traits)

    def posed(self, position: Array, turn: Array, phase: float) -> Figure:
        """Stand in the world; `phase` in radians moves the legs."""
        h, b = self.height, self.build
        strokes: list[Stroke] = []
        for side, swing in ((-1.0, math.sin(phase)), (1.0, -math.sin(phase))):
            hip = (side * 0.085 * b, 0.5 * h, 0.0)
            thigh = self.stride * swing
            knee = _joint(hip, 0.245 * h, thigh)
            bend = 0.12 + 0.5 * self.stride * max(0.0, math.cos(phase) * side * -1)
            foot = _joint(knee, 0.225 * h, thigh - bend)
            strokes += [
                (hip, knee, 0.085 * b, 0.065 * b, self.legs),
                (knee, foot, 0.065 * b, 0.045, self.legs),
                (foot, _off(foot, 0, -0.015, 0.13), 0.045, 0.035, (36, 34, 40)),
            ]
            shoulder = (side * 0.19 * b, 0.8 * h, 0.0)
            elbow = _joint(shoulder, 0.17 * h, -self.stride * swing * 0.8)
            hand = _joint(elbow, 0.15 * h, -self.stride * swing * 0.8 + 0.3)
            strokes += [
                (shoulder, elbow, 0.06 * b, 0.05, self.top),
                (elbow, hand, 0.048, 0.038, self.top),
                (hand, _off(hand, 0, -0.04, 0.01), 0.042, 0.035, self.skin),
            ]
        strokes += self._trunk()
        return Figure(*_place(strokes, position, turn))

    def _trunk(self) -> list[Stroke]:
        h, b = self.height, self.build
        up = [(0.0, y * h, 0.0) for y in (0.52, 0.76, 0.84, 0.9, 0.94)]
        head = (0.0, 0.925 * h, 0.02)
        strokes: list[Stroke] = [
            (up[0], up[1], 0.155 * b, 0.2 * b, self.top),
            (up[2], up[3], 0.055, 0.055, self.skin),
            (head, _off(head, 0, 0.025, 0), 0.1, 0.105, self.skin),
            (_off(head, 0, 0.03, -0.035), _off(head, 0, 0.04, -0.02), 0.1, 0.105, self.hair),
        ]
        if self.dress:
            hem = (0.0, 0.3 * h, 0.0)
            strokes.append((up[0], hem, 0.16 * b, 0.19 * b, self.top))
        if self.bag:
            back = (0.0, 0.62 * h, -0.2)
            strokes.append((back, _off(back, 0, 0.13 * h, 0), 0.13, 0.12, self.legs))
        return strokes


@dataclass(frozen=True, slots=True)
class Rider:
    """Somebody on a bicycle.

    Attributes:
        top: Colour of the jacket.
        legs: Colour of the trousers.
        skin: Colour of the skin.
        helmet: Colour of the helmet.
        frame: Colour of the bicycle.
    """

    top: Colour
    legs: Colour
    skin: Colour
    helmet: Colour
    frame: Colour

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Rider:
        """Draw a cyclist."""
        return cls(
            _any(rng, _TOPS),
            _any(rng, _LEGS),
            _any(rng, _SKINS),
            _any(rng, _TOPS),
            _any(rng, _TOPS),
        )

    def posed(self, position: Array, turn: Array, phase: float) -> Figure:
        """Ride in the world; `phase` in radians turns the pedals."""
        saddle, crank = (0, 0.92, -0.22), (0, 0.3, -0.04)
        bar, neck = (0, 1.02, 0.44), (0, 0.84, 0.42)
        rear, front = (0, 0.34, -0.53), (0, 0.34, 0.55)
        strokes: list[Stroke] = [
            (a, b, 0.026, 0.026, self.frame)
            for a, b in ((saddle, crank), (crank, neck), (saddle, neck), (rear, crank),
                         (rear, saddle), (front, bar))
        ]  # fmt: skip
        for hub in (rear, front):
            tyre = (_off(hub, 0, -0.31, 0), _off(hub, 0, 0.31, 0))
            strokes.append((*tyre, 0.022, 0.022, (40, 38, 38)))
        strokes.append(
            (_off(saddle, 0, 0.03, -0.1), _off(saddle, 0, 0.03, 0.1), 0.06, 0.035, (30, 30, 30))
        )
        strokes.append((_off(bar, -0.26, 0, 0), _off(bar, 0.26, 0, 0), 0.022, 0.022, (40, 40, 40)))
        strokes += self._body(crank, bar, phase)
        ends, radii, colours = _place(strokes, position, turn)
        return Figure(ends, radii, colours, self._rings((rear, front)) @ turn.T + position)

    def _body(self, crank: Point, bar: Point, phase: float) -> list[Stroke]:
        strokes: list[Stroke] = []
        for side, angle in ((-1.0, phase), (1.0, phase + math.pi)):
            hip = (side * 0.1, 0.98, -0.2)
            foot = _off(crank, side * 0.1, 0.17 * math.cos(angle), 0.17 * math.sin(angle))
            middle = ((hip[0] + foot[0]) / 2, (hip[1] + foot[1]) / 2, (hip[2] + foot[2]) / 2)
            knee = _off(middle, side * 0.03, 0.09, 0.22)
            strokes += [
                (hip, knee, 0.09, 0.065, self.legs),
                (knee, foot, 0.06, 0.045, self.legs),
                (foot, _off(foot, 0, -0.01, 0.13), 0.045, 0.035, (36, 34, 40)),
            ]
            shoulder = (side * 0.17, 1.45, 0.1)
            elbow = (side * 0.24, 1.2, 0.24)
            strokes += [
                (shoulder, elbow, 0.062, 0.05, self.top),
                (elbow, _off(bar, side * 0.22, 0.02, 0), 0.046, 0.036, self.skin),
            ]
        hips, chest = (0, 1.0, -0.2), (0, 1.4, 0.05)
        head = (0, 1.66, 0.2)
        return [
            *strokes,
            (hips, chest, 0.15, 0.19, self.top),
            (chest, head, 0.06, 0.06, self.skin),
            (head, _off(head, 0, 0.03, 0.01), 0.1, 0.1, self.skin),
            (_off(head, 0, 0.05, -0.07), _off(head, 0, 0.07, 0.05), 0.105, 0.1, self.helmet),
        ]

    @staticmethod
    def _rings(hubs: tuple[Point, Point]) -> Array:
        spin = np.column_stack([np.zeros(len(_CIRCLE)), np.sin(_CIRCLE), np.cos(_CIRCLE)])
        edges = [[np.array(hub) + spin * r for r in (0.345, 0.29)] for hub in hubs]
        return np.array(edges).transpose(0, 2, 1, 3)
