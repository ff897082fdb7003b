"""Animated people and cyclists, whose limbs are rounded strokes (capsules)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from realtime_ssd.core.frames import Image
from realtime_ssd.synthetic.lighting import Light
from realtime_ssd.synthetic.projection import NEAR, Array, View
from realtime_ssd.synthetic.shapes import SHIFT, Outline, bounds_of, to_fixed_point

__all__ = ["Figure", "Person", "ProjectedFigure", "Rider"]

Color = tuple[int, int, int]

_SKINS: tuple[Color, ...] = ((150, 182, 224), (122, 156, 206), (84, 116, 168), (56, 80, 122))
_HAIRS: tuple[Color, ...] = ((30, 34, 40), (36, 56, 84), (70, 110, 150), (120, 124, 128))
_TOPS: tuple[Color, ...] = (
    (52, 52, 200), (196, 120, 50), (70, 160, 70), (60, 190, 235), (225, 225, 225), (60, 60, 64),
    (150, 70, 130), (160, 160, 60), (40, 120, 230), (130, 110, 180),
)  # fmt: skip
_LEGS: tuple[Color, ...] = (
    (96, 66, 42), (50, 46, 44), (70, 90, 110), (120, 128, 134), (140, 96, 60), (44, 60, 74),
)  # fmt: skip
_CAP_POINTS = 5
_CAP_ANGLES = np.linspace(0, math.pi, _CAP_POINTS)
_COS, _SIN = np.cos(_CAP_ANGLES)[:, None], np.sin(_CAP_ANGLES)[:, None]
_X_AXIS, _QUARTER_TURN = np.array([1.0, 0.0]), np.array([-1.0, 1.0])
# Figures below this fraction of the frame height are drawn without a lit side.
_FLAT_HEIGHT = 0.06
# Factors of ambient light and of sunlight on the dark and on the lit side.
_AMBIENT_FACTORS, _SUN_FACTORS = np.array([[0.92], [1.0]]), np.array([[0.18], [0.6]])
_LIT_SIDE_SCALE = np.array([0.66, 0.9])
_CIRCLE = np.linspace(0, 2 * math.pi, 20, endpoint=False)


def _choose(rng: np.random.Generator, options: tuple[Color, ...]) -> Color:
    return options[int(rng.integers(len(options)))]


@dataclass(frozen=True, slots=True, eq=False)
class Figure:
    """Rounded strokes and rings in world coordinates.

    Attributes:
        ends: 2 × N × 3, start and end of each stroke in meters.
        radii: 2 × N, radius at start and end.
        colors: N × 3: blue, green, red.
        rings: M × 20 × 2 × 3, outer and inner edge of each wheel; None without wheels.
    """

    ends: Array
    radii: Array
    colors: Array
    rings: Array | None = None

    def project(self, view: View) -> ProjectedFigure | None:
        """Project the figure for one frame; None if any part is behind the near plane."""
        count = self.ends.shape[1]
        points = view.camera.to_camera(self.ends.reshape(-1, 3))
        depth = points[:, 2].reshape(2, count)
        if depth.min() < NEAR:
            return None
        first, last = view.pixels(points).reshape(2, count, 2)
        radii = self.radii * (view.scale / depth)
        strokes = _capsules(first, last, radii)
        outline: Outline = list(strokes.astype(np.float32))
        corners, rings = strokes.reshape(-1, 2), None
        if self.rings is not None:
            flat = view.project(self.rings.reshape(-1, 3))
            rings = flat.reshape(len(self.rings), -1, 2, 2)
            corners = np.concatenate([corners, flat])
            outline += [
                cv2.convexHull(ring[:, 0].astype(np.float32)).reshape(-1, 2) for ring in rings
            ]
        means = ((depth[0] + depth[1]) / 2, (radii[0] + radii[1]) / 2)
        return ProjectedFigure(self, view, strokes, *means, rings, outline, bounds_of(corners))


@dataclass(frozen=True, slots=True, eq=False)
class ProjectedFigure:
    """A `Figure` projected for one frame.

    Attributes:
        figure: The figure.
        view: The projection.
        strokes: N × 10 × 2, the strokes as polygons in pixels.
        depth: Distance of each stroke in meters.
        radii: Mean radius of each stroke in pixels.
        rings: M × 20 × 2 × 2, outer and inner edge of each wheel in pixels; None without wheels.
        outline: Silhouette: one polygon per stroke and one filled disc per wheel.
        bounds: x1, y1, x2, y2 of the silhouette in pixels.
    """

    figure: Figure
    view: View
    strokes: Array
    depth: Array
    radii: Array
    rings: Array | None
    outline: Outline
    bounds: Array

    def draw(self, image: Image, light: Light, hidden: float = 0.0) -> None:
        """Draw rings, then strokes from far to near, each with a lit side."""
        distance = float(self.depth[0])
        if self.rings is not None:
            tyre = light.fade(np.array([[34.0, 32, 32]]) * light.ambient, distance, hidden)
            for ring in to_fixed_point(self.rings):
                edges = [np.ascontiguousarray(ring[:, k]) for k in (0, 1)]
                cv2.fillPoly(image, edges, tyre[0].tolist(), cv2.LINE_AA, SHIFT)
        shades = light.ambient * _AMBIENT_FACTORS + light.sun * _SUN_FACTORS
        tones = np.minimum(self.figure.colors * shades[:, None], 255)
        dark, lit = light.fade(tones, distance, hidden).tolist()
        order = np.argsort(-self.depth, kind="stable").tolist()
        outer = to_fixed_point(self.strokes)
        if self.bounds[3] - self.bounds[1] < _FLAT_HEIGHT * image.shape[0]:
            for k in order:
                cv2.fillConvexPoly(image, outer[k], lit[k], cv2.LINE_AA, SHIFT)
            return
        side = float(self.view.camera.rotation[0] @ light.direction)
        center = self.strokes.mean(axis=1, keepdims=True)
        inner = (self.strokes - center) * _LIT_SIDE_SCALE + center
        inner[:, :, 0] += 0.28 * side * self.radii[:, None]
        core = to_fixed_point(inner)
        for k in order:
            cv2.fillConvexPoly(image, outer[k], dark[k], cv2.LINE_AA, SHIFT)
            cv2.fillConvexPoly(image, core[k], lit[k], cv2.LINE_AA, SHIFT)


def _capsules(first: Array, last: Array, radii: Array) -> Array:
    """Return N × 10 × 2 polygons around N strokes with 2 × N radii, all in pixels."""
    along = last - first
    length = np.hypot(along[:, 0], along[:, 1])[:, None]
    along = np.where(length > 1e-9, along / np.maximum(length, 1e-9), _X_AXIS)
    across = along[:, ::-1] * _QUARTER_TURN
    fan = _COS * across[:, None] + _SIN * along[:, None]
    high = last[:, None] + fan * radii[1][:, None, None]
    low = first[:, None] - fan * radii[0][:, None, None]
    return np.concatenate([high, low], axis=1)


Point = tuple[float, float, float]
Stroke = tuple[Point, Point, float, float, Color]


def _to_world(
    strokes: list[Stroke], position: Array, rotation: Array
) -> tuple[Array, Array, Array]:
    """Return ends and radii in world coordinates, and colors."""
    ends = np.array([[s[0] for s in strokes], [s[1] for s in strokes]]) @ rotation.T + position
    radii = np.array([[s[2] for s in strokes], [s[3] for s in strokes]])
    return ends, radii, np.array([s[4] for s in strokes], np.float64)


def _joint(start: Point, length: float, angle: float) -> Point:
    """Return the end of a limb that hangs from `start`, rotated forward by an angle."""
    x, y, z = start
    return (x, y - length * math.cos(angle), z + length * math.sin(angle))


def _offset(start: Point, x: float, y: float, z: float) -> Point:
    return (start[0] + x, start[1] + y, start[2] + z)


@dataclass(frozen=True, slots=True)
class Person:
    """A pedestrian.

    Attributes:
        height: Height in meters.
        build: Factor on the width of the body.
        stride: Amplitude of the legs in radians.
        top: Color of the jacket.
        legs: Color of the trousers.
        skin: Color of the skin.
        hair: Color of the hair.
        dress: Whether the figure has a skirt or long coat.
        bag: Whether the figure has a backpack.
    """

    height: float
    build: float
    stride: float
    top: Color
    legs: Color
    skin: Color
    hair: Color
    dress: bool
    bag: bool

    @classmethod
    def sample(cls, rng: np.random.Generator) -> Person:
        """Sample a pedestrian."""
        height = rng.uniform(1.58, 1.92) if rng.random() < 0.92 else rng.uniform(1.2, 1.4)
        colors = (
            _choose(rng, _TOPS),
            _choose(rng, _LEGS),
            _choose(rng, _SKINS),
            _choose(rng, _HAIRS),
        )
        traits = (bool(rng.random() < 0.25), bool(rng.random() < 0.3))
        return cls(height, rng.uniform(0.92, 1.15), rng.uniform(0.42, 0.56), *colors, *traits)

    def pose(self, position: Array, rotation: Array, phase: float) -> Figure:
        """Return the figure in the world at a phase of its walk in radians."""
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
                (foot, _offset(foot, 0, -0.015, 0.13), 0.045, 0.035, (36, 34, 40)),
            ]
            shoulder = (side * 0.19 * b, 0.8 * h, 0.0)
            elbow = _joint(shoulder, 0.17 * h, -self.stride * swing * 0.8)
            hand = _joint(elbow, 0.15 * h, -self.stride * swing * 0.8 + 0.3)
            strokes += [
                (shoulder, elbow, 0.06 * b, 0.05, self.top),
                (elbow, hand, 0.048, 0.038, self.top),
                (hand, _offset(hand, 0, -0.04, 0.01), 0.042, 0.035, self.skin),
            ]
        strokes += self._trunk()
        return Figure(*_to_world(strokes, position, rotation))

    def _trunk(self) -> list[Stroke]:
        h, b = self.height, self.build
        up = [(0.0, y * h, 0.0) for y in (0.52, 0.76, 0.84, 0.9, 0.94)]
        head = (0.0, 0.925 * h, 0.02)
        strokes: list[Stroke] = [
            (up[0], up[1], 0.155 * b, 0.2 * b, self.top),
            (up[2], up[3], 0.055, 0.055, self.skin),
            (head, _offset(head, 0, 0.025, 0), 0.1, 0.105, self.skin),
            (_offset(head, 0, 0.03, -0.035), _offset(head, 0, 0.04, -0.02), 0.1, 0.105, self.hair),
        ]
        if self.dress:
            hem = (0.0, 0.3 * h, 0.0)
            strokes.append((up[0], hem, 0.16 * b, 0.19 * b, self.top))
        if self.bag:
            back = (0.0, 0.62 * h, -0.2)
            strokes.append((back, _offset(back, 0, 0.13 * h, 0), 0.13, 0.12, self.legs))
        return strokes


@dataclass(frozen=True, slots=True)
class Rider:
    """A cyclist.

    Attributes:
        top: Color of the jacket.
        legs: Color of the trousers.
        skin: Color of the skin.
        helmet: Color of the helmet.
        frame: Color of the bicycle.
    """

    top: Color
    legs: Color
    skin: Color
    helmet: Color
    frame: Color

    @classmethod
    def sample(cls, rng: np.random.Generator) -> Rider:
        """Sample a cyclist."""
        return cls(
            _choose(rng, _TOPS),
            _choose(rng, _LEGS),
            _choose(rng, _SKINS),
            _choose(rng, _TOPS),
            _choose(rng, _TOPS),
        )

    def pose(self, position: Array, rotation: Array, phase: float) -> Figure:
        """Return the figure in the world at a phase of its pedals in radians."""
        saddle, crank = (0, 0.92, -0.22), (0, 0.3, -0.04)
        bar, neck = (0, 1.02, 0.44), (0, 0.84, 0.42)
        rear, front = (0, 0.34, -0.53), (0, 0.34, 0.55)
        strokes: list[Stroke] = [
            (a, b, 0.026, 0.026, self.frame)
            for a, b in ((saddle, crank), (crank, neck), (saddle, neck), (rear, crank),
                         (rear, saddle), (front, bar))
        ]  # fmt: skip
        for hub in (rear, front):
            tyre = (_offset(hub, 0, -0.31, 0), _offset(hub, 0, 0.31, 0))
            strokes.append((*tyre, 0.022, 0.022, (40, 38, 38)))
        strokes.append(
            (
                _offset(saddle, 0, 0.03, -0.1),
                _offset(saddle, 0, 0.03, 0.1),
                0.06,
                0.035,
                (30, 30, 30),
            )
        )
        strokes.append(
            (_offset(bar, -0.26, 0, 0), _offset(bar, 0.26, 0, 0), 0.022, 0.022, (40, 40, 40))
        )
        strokes += self._body(crank, bar, phase)
        ends, radii, colors = _to_world(strokes, position, rotation)
        return Figure(ends, radii, colors, self._rings((rear, front)) @ rotation.T + position)

    def _body(self, crank: Point, bar: Point, phase: float) -> list[Stroke]:
        strokes: list[Stroke] = []
        for side, angle in ((-1.0, phase), (1.0, phase + math.pi)):
            hip = (side * 0.1, 0.98, -0.2)
            foot = _offset(crank, side * 0.1, 0.17 * math.cos(angle), 0.17 * math.sin(angle))
            middle = ((hip[0] + foot[0]) / 2, (hip[1] + foot[1]) / 2, (hip[2] + foot[2]) / 2)
            knee = _offset(middle, side * 0.03, 0.09, 0.22)
            strokes += [
                (hip, knee, 0.09, 0.065, self.legs),
                (knee, foot, 0.06, 0.045, self.legs),
                (foot, _offset(foot, 0, -0.01, 0.13), 0.045, 0.035, (36, 34, 40)),
            ]
            shoulder = (side * 0.17, 1.45, 0.1)
            elbow = (side * 0.24, 1.2, 0.24)
            strokes += [
                (shoulder, elbow, 0.062, 0.05, self.top),
                (elbow, _offset(bar, side * 0.22, 0.02, 0), 0.046, 0.036, self.skin),
            ]
        hips, chest = (0, 1.0, -0.2), (0, 1.4, 0.05)
        head = (0, 1.66, 0.2)
        return [
            *strokes,
            (hips, chest, 0.15, 0.19, self.top),
            (chest, head, 0.06, 0.06, self.skin),
            (head, _offset(head, 0, 0.03, 0.01), 0.1, 0.1, self.skin),
            (_offset(head, 0, 0.05, -0.07), _offset(head, 0, 0.07, 0.05), 0.105, 0.1, self.helmet),
        ]

    @staticmethod
    def _rings(hubs: tuple[Point, Point]) -> Array:
        spin = np.column_stack([np.zeros(len(_CIRCLE)), np.sin(_CIRCLE), np.cos(_CIRCLE)])
        edges = [[np.array(hub) + spin * r for r in (0.345, 0.29)] for hub in hubs]
        rings: Array = np.array(edges).transpose(0, 2, 1, 3)
        return rings
