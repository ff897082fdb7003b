"""Geometry of random cars, buses and trucks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from realtime_ssd.synthetic.projection import Array
from realtime_ssd.synthetic.shapes import Builder, Solid, patch

__all__ = ["bus", "car", "truck"]

Color = tuple[int, int, int]

_PAINTS: tuple[Color, ...] = (
    (48, 42, 196), (190, 110, 36), (232, 232, 230), (60, 58, 56), (168, 164, 160), (44, 160, 226),
    (92, 128, 46), (120, 60, 30), (66, 98, 150), (200, 176, 96), (34, 120, 232), (150, 140, 60),
)  # fmt: skip
_LIVERIES: tuple[tuple[Color, Color], ...] = (
    ((50, 44, 206), (235, 235, 235)), ((36, 178, 240), (60, 60, 60)),
    ((178, 98, 28), (240, 240, 240)), ((84, 150, 40), (236, 240, 240)),
    ((235, 235, 235), (190, 110, 30)), ((180, 150, 30), (240, 240, 240)),
)  # fmt: skip
_CARGO: tuple[Color, ...] = (
    (236, 236, 234), (206, 210, 214), (120, 176, 206), (158, 92, 40), (60, 60, 168), (92, 132, 60),
    (214, 200, 160), (70, 150, 224),
)  # fmt: skip
_GLASS = (82, 64, 50)
_DARK = (34, 32, 30)
_TYRE = (30, 28, 28)
_HUB = (150, 148, 146)
_FRONT_LAMP = (214, 246, 255)
_REAR_LAMP = (40, 34, 214)
_PLATE = (215, 225, 228)
_FORWARD = np.array([0.0, 0.0, 1.0])
_RIGHT = np.array([1.0, 0.0, 0.0])


def _choose(rng: np.random.Generator, options: Sequence[Color]) -> Color:
    return options[int(rng.integers(len(options)))]


def _circle(x: float, y: float, z: float, radius: float, corners: int) -> Array:
    angle = np.arange(corners) * (2 * math.pi / corners)
    return np.column_stack(
        [np.full(corners, x), y + radius * np.sin(angle), z + radius * np.cos(angle)]
    )


def _panel(x: float, z: tuple[float, float], y: tuple[float, float]) -> Array:
    """Return a rectangle in the plane of a constant x."""
    return np.array([[x, y[0], z[0]], [x, y[0], z[1]], [x, y[1], z[1]], [x, y[1], z[0]]])


def _plate(z: float, x: tuple[float, float], y: tuple[float, float]) -> Array:
    """Return a rectangle in the plane of a constant z."""
    return np.array([[x[0], y[0], z], [x[1], y[0], z], [x[1], y[1], z], [x[0], y[1], z]])


def _add_wheels(build: Builder, half: float, axles: Sequence[float], radius: float) -> None:
    """Add wheels as seen from the side; call after the faces of the body."""
    for z in axles:
        for side in (-1.0, 1.0):
            x = side * (half + 0.01)
            build.face(_circle(x, radius, z, radius * 1.16, 20), _DARK, side * _RIGHT)
            build.face(_circle(x, radius, z, radius, 20), _TYRE, side * _RIGHT)
            build.face(_circle(x, radius, z, radius * 0.56, 12), _HUB, side * _RIGHT)


def _add_tyre_ends(build: Builder, half: float, axles: Sequence[float], radius: float) -> None:
    """Add tyres as seen from the front and the rear; call before the faces of the body."""
    for z, end in ((max(axles) + radius * 0.5, 1.0), (min(axles) - radius * 0.5, -1.0)):
        for side in (-1.0, 1.0):
            x = (side * half, side * (half - 0.26))
            build.face(_plate(z, x, (0.0, radius)), _TYRE, end * _FORWARD)


def _add_lamps(
    build: Builder, half: float, ends: tuple[float, float], y: float, size: tuple[float, float]
) -> None:
    rear, front = ends
    wide, high = size
    for side in (-1.0, 1.0):
        x = (side * half, side * (half - wide))
        build.face(_plate(front, x, (y, y + high)), _FRONT_LAMP, _FORWARD, 1.0)
        build.face(_plate(rear, x, (y, y + high)), _REAR_LAMP, -_FORWARD, 0.8)


def _darker(color: Color, factor: float) -> Color:
    return (int(color[0] * factor), int(color[1] * factor), int(color[2] * factor))


def car(rng: np.random.Generator) -> Solid:
    """Return a random saloon, hatchback, estate car or SUV."""
    kind = int(rng.integers(4))
    length = (4.5, 3.9, 4.7, 4.6)[kind] * rng.uniform(0.95, 1.05)
    high = (1.45, 1.5, 1.5, 1.75)[kind] * rng.uniform(0.97, 1.04)
    half, end = rng.uniform(0.88, 0.95), length / 2
    waist = high * 0.6
    paint = _choose(rng, _PAINTS)
    build = Builder()
    axles, radius = (-length * 0.3, length * 0.31), (0.33, 0.32, 0.34, 0.38)[kind]
    _add_tyre_ends(build, half * 0.97, axles, radius)
    hood = end - length * (0.27, 0.2, 0.24, 0.25)[kind]
    body = [
        (-end + 0.06, 0.2, half), (end - 0.08, 0.2, half), (end, 0.42, half),
        (end - 0.06, waist * 0.82, half), (hood, waist, half), (-end + 0.04, waist, half),
        (-end, 0.5, half),
    ]  # fmt: skip
    build.prism(body, paint)
    _add_car_details(build, half, end, waist, paint)
    _add_wheels(build, half, axles, radius)
    build.end_part()
    tail = -end + (0.75, 0.12, 0.1, 0.1)[kind]
    rake = (0.55, 0.3, 0.22, 0.25)[kind]
    _add_cabin(build, (tail, hood - 0.08), (waist - 0.01, high), half, rake, paint)
    return build.solid()


def _add_car_details(build: Builder, half: float, end: float, waist: float, paint: Color) -> None:
    for side in (-1.0, 1.0):
        sill = _panel(side * half, (-end + 0.1, end - 0.12), (0.2, 0.34))
        build.face(sill, _darker(paint, 0.45), side * _RIGHT)
        for z in (-0.12, 0.9):
            seam = _panel(side * half, (z, z + 0.03), (0.36, waist))
            build.face(seam, _darker(paint, 0.6), side * _RIGHT)
    build.face(_plate(end, (-half, half), (0.22, 0.4)), _darker(paint, 0.4), _FORWARD)
    build.face(_plate(end, (-half * 0.55, half * 0.55), (0.44, waist * 0.72)), _DARK, _FORWARD)
    build.face(_plate(-end, (-half, half), (0.22, 0.42)), _darker(paint, 0.5), -_FORWARD)
    _add_lamps(build, half * 0.98, (-end, end), waist * 0.62, (0.34, 0.16))
    for z, normal in ((end, _FORWARD), (-end, -_FORWARD)):
        build.face(_plate(z, (-0.26, 0.26), (0.4, 0.52)), _PLATE, normal)


def _add_cabin(
    build: Builder,
    base: tuple[float, float],
    heights: tuple[float, float],
    half: float,
    rake: float,
    paint: Color,
) -> None:
    (rear, front), (low, high) = base, heights
    narrow = half * 0.8
    profile = [
        (rear, low, half * 0.97), (front, low, half * 0.97),
        (front - 0.75, high, narrow), (rear + rake, high, narrow),
    ]  # fmt: skip
    faces = build.prism(profile, paint)
    build.face(patch(faces[1], 0.05, 0.95, 0.08, 0.94), _GLASS)
    windscreen, back = faces[1], faces[3][[2, 3, 0, 1]]
    build.face(patch(windscreen, 0.12, 0.42, 0.35, 0.9), (128, 112, 96), build.normals[-1])
    outward = np.array([0.0, 0.0, -1.0])
    build.face(patch(back, 0.07, 0.93, 0.15, 0.9), _GLASS, outward)
    for side, points in ((-1.0, faces[4][::-1]), (1.0, faces[5])):
        normal = side * _RIGHT
        build.face(patch(points, 0.05, 0.5, 0.1, 0.88), _GLASS, normal)
        build.face(patch(points, 0.54, 0.95, 0.1, 0.88), _GLASS, normal)
    build.end_part()


def bus(rng: np.random.Generator) -> Solid:
    """Return a random city bus."""
    end, half, high = rng.uniform(4.9, 5.9), 1.26, rng.uniform(3.0, 3.25)
    paint, stripe = _LIVERIES[int(rng.integers(len(_LIVERIES)))]
    build = Builder()
    axles, radius = (-end * 0.55, end * 0.6), 0.48
    _add_tyre_ends(build, half, axles, radius)
    body = [
        (-end, 0.32, half), (end, 0.32, half), (end, high - 0.25, half), (end - 0.2, high, half),
        (-end + 0.15, high, half), (-end, high - 0.2, half),
    ]  # fmt: skip
    build.prism(body, paint)
    _add_bus_sides(build, end, half, high, stripe)
    _add_bus_ends(build, end, half, high)
    _add_wheels(build, half, axles, radius)
    roof = np.array([[-0.7, high, -1.2], [0.7, high, -1.2], [0.7, high, 1.4], [-0.7, high, 1.4]])
    build.face(roof, _darker(paint, 0.8), np.array([0.0, 1.0, 0.0]))
    return build.solid()


def _add_bus_sides(build: Builder, end: float, half: float, high: float, stripe: Color) -> None:
    windows = 7
    for side in (-1.0, 1.0):
        normal, x = side * _RIGHT, side * half
        build.face(_panel(x, (-end, end), (0.34, 0.85)), stripe, normal)
        build.face(_panel(x, (-end + 0.1, end - 0.05), (1.3, high - 0.42)), _DARK, normal)
        step = (2 * end - 0.5) / windows
        for k in range(windows):
            z = -end + 0.25 + k * step
            build.face(
                _panel(x, (z + 0.06, z + step - 0.06), (1.36, high - 0.5)), _GLASS, normal, 0.12
            )
            build.face(
                _panel(x, (z + 0.1, z + step * 0.45), (2.0, high - 0.54)), (124, 106, 90), normal
            )
    for z in (end - 1.5, -0.6):
        build.face(_panel(half, (z, z + 1.15), (0.42, high - 0.5)), (60, 50, 42), _RIGHT)
        build.face(_panel(half, (z + 0.56, z + 0.6), (0.42, high - 0.5)), _DARK, _RIGHT)


def _add_bus_ends(build: Builder, end: float, half: float, high: float) -> None:
    wide = half * 0.93
    build.face(_plate(end, (-wide, wide), (1.15, high - 0.62)), _GLASS, _FORWARD)
    build.face(_plate(end, (-wide * 0.9, -wide * 0.3), (1.5, high - 0.7)), (122, 106, 90), _FORWARD)
    build.face(_plate(end, (-wide, wide), (high - 0.58, high - 0.28)), (24, 22, 22), _FORWARD)
    build.face(
        _plate(end, (-wide * 0.7, wide * 0.6), (high - 0.52, high - 0.34)),
        (40, 180, 255), _FORWARD, 1.0,
    )  # fmt: skip
    build.face(_plate(end, (-half, half), (0.32, 0.55)), _DARK, _FORWARD)
    build.face(_plate(-end, (-wide, wide), (1.7, high - 0.5)), _GLASS, -_FORWARD)
    build.face(_plate(-end, (-wide * 0.8, wide * 0.8), (0.7, 1.4)), (70, 66, 62), -_FORWARD)
    build.face(_plate(-end, (-half, half), (0.32, 0.5)), _DARK, -_FORWARD)
    _add_lamps(build, half * 0.95, (-end, end), 0.66, (0.36, 0.22))
    build.face(_plate(end, (-0.26, 0.26), (0.56, 0.68)), _PLATE, _FORWARD)


def truck(rng: np.random.Generator) -> Solid:
    """Return a random truck with a box or a tipper body."""
    end, half = rng.uniform(3.4, 4.4), 1.22
    split = end - 2.0
    cab_high = rng.uniform(2.4, 2.8)
    build = Builder()
    axles, radius = (-end * 0.72, -end * 0.72 + 1.1), 0.5
    _add_tyre_ends(build, half, (min(axles), end - 0.8), radius)
    build.prism(
        [(-end, 0.5, half * 0.8), (split, 0.5, half * 0.8), (split, 0.95, half * 0.8),
         (-end, 0.95, half * 0.8)], (58, 56, 54),
    )  # fmt: skip
    if rng.random() < 0.65:
        _add_box(build, rng, (-end, split - 0.15), half)
    else:
        _add_tipper(build, rng, (-end, split - 0.15), half)
    _add_lamps(build, half * 0.9, (-end - 0.01, split - 0.02), 0.62, (0.3, 0.2))
    _add_wheels(build, half * 0.98, axles, radius)
    build.end_part()
    _add_cab(build, (split, end), half, cab_high, _choose(rng, _PAINTS))
    _add_wheels(build, half * 0.98, (end - 0.8,), radius)
    build.end_part()
    return build.solid(split - 0.08)


def _add_box(
    build: Builder, rng: np.random.Generator, ends: tuple[float, float], half: float
) -> None:
    (rear, front), high = ends, rng.uniform(3.0, 3.6)
    paint, mark = _choose(rng, _CARGO), _choose(rng, _PAINTS)
    build.prism(
        [(rear, 0.95, half), (front, 0.95, half), (front, high, half), (rear, high, half)], paint
    )
    middle, long = (rear + front) / 2, (front - rear)
    for side in (-1.0, 1.0):
        x, normal = side * half, side * _RIGHT
        build.face(_panel(x, (rear, front), (0.95, 1.12)), _darker(paint, 0.55), normal)
        logo = (middle - long * 0.28, middle + long * 0.28)
        build.face(_panel(x, logo, (1.75, high - 0.6)), mark, normal)
        build.face(_panel(x, (logo[0] + 0.2, logo[1] - 0.4), (1.95, 2.15)), (235, 235, 235), normal)
    build.face(_plate(rear, (-0.02, 0.02), (1.05, high - 0.1)), _darker(paint, 0.5), -_FORWARD)
    for x in (-0.25, 0.2):
        build.face(_plate(rear, (x, x + 0.05), (1.05, high - 0.1)), _darker(paint, 0.72), -_FORWARD)
    build.face(_plate(rear, (-half, half), (0.9, 1.05)), (40, 40, 180), -_FORWARD)


def _add_tipper(
    build: Builder, rng: np.random.Generator, ends: tuple[float, float], half: float
) -> None:
    (rear, front), high = ends, rng.uniform(2.1, 2.5)
    paint = _choose(rng, ((30, 150, 220), (60, 90, 60), (150, 100, 40), (70, 70, 190)))
    build.prism(
        [(rear + 0.1, 0.95, half), (front, 0.95, half), (front, high, half),
         (rear - 0.15, high, half)], paint,
    )  # fmt: skip
    load = np.array([
        [-half * 0.88, high, rear + 0.1], [half * 0.88, high, rear + 0.1],
        [half * 0.88, high, front - 0.15], [-half * 0.88, high, front - 0.15],
    ])  # fmt: skip
    build.face(load, (64, 88, 112), np.array([0.0, 1.0, 0.0]))
    ribs = 5
    for side in (-1.0, 1.0):
        for k in range(ribs):
            z = rear + 0.3 + k * (front - rear - 0.6) / (ribs - 1)
            build.face(
                _panel(side * half, (z - 0.06, z + 0.06), (0.98, high)),
                _darker(paint, 0.68), side * _RIGHT,
            )  # fmt: skip


def _add_cab(
    build: Builder, ends: tuple[float, float], half: float, high: float, paint: Color
) -> None:
    rear, front = ends
    faces = build.prism(
        [(rear, 0.45, half), (front, 0.45, half), (front, 1.3, half), (front - 0.22, high, half),
         (rear, high, half)], paint,
    )  # fmt: skip
    build.face(patch(faces[2], 0.06, 0.94, 0.1, 0.78), _GLASS)
    build.face(patch(faces[2], 0.12, 0.45, 0.3, 0.72), (124, 108, 92), build.normals[-1])
    for side in (-1.0, 1.0):
        x, normal = side * half, side * _RIGHT
        window = _panel(x, (front - 1.15, front - 0.3), (1.5, high - 0.3))
        build.face(window, _GLASS, normal)
        build.face(_panel(x, (rear, front - 0.02), (0.45, 0.7)), _DARK, normal)
    build.face(_plate(front, (-half, half), (0.45, 0.72)), _DARK, _FORWARD)
    build.face(_plate(front, (-half * 0.6, half * 0.6), (0.85, 1.2)), (52, 50, 48), _FORWARD)
    for side in (-1.0, 1.0):
        lamp = (side * half * 0.95, side * (half * 0.95 - 0.34))
        build.face(_plate(front, lamp, (0.76, 0.96)), _FRONT_LAMP, _FORWARD, 1.0)
    build.face(_plate(front, (-0.26, 0.26), (0.54, 0.66)), _PLATE, _FORWARD)
