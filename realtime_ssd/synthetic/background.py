"""The static background, rendered once: sky, houses, road, pavements, trees and lamps."""

from __future__ import annotations

import cv2
import numpy as np

from realtime_ssd.core.frames import Image
from realtime_ssd.synthetic.canvas import UP, Canvas
from realtime_ssd.synthetic.facades import draw_bridge, draw_houses, draw_skyline
from realtime_ssd.synthetic.greenery import draw_street_furniture, tree_positions
from realtime_ssd.synthetic.lighting import Light
from realtime_ssd.synthetic.projection import Array, View
from realtime_ssd.synthetic.street_plan import Street

__all__ = ["draw_background"]

_WHITE = np.array([214.0, 216, 216])
_SKY_ROWS, _SKY_COLUMNS = 180, 320


def draw_background(
    rng: np.random.Generator, street: Street, light: Light, view: View, width: int, height: int
) -> Image:
    """Return the background, `height` × `width` × 3 BGR."""
    streams = rng.spawn(6)
    image = _render_sky(streams[0], light, view, width, height)
    canvas = Canvas(image, view, light)
    trees = tree_positions(streams[1], street, street.end)
    draw_skyline(canvas, streams[2])
    _draw_ground(canvas, streams[3], street)
    _draw_shadows(canvas, street, trees)
    draw_bridge(canvas, streams[4], street, street.end)
    draw_houses(canvas, streams[5], street, street.end)
    draw_street_furniture(canvas, streams[1], street, trees)
    return image


def _render_sky(
    rng: np.random.Generator, light: Light, view: View, width: int, height: int
) -> Image:
    """Return gradient, sun and clouds, rendered at a fixed size and scaled for any frame size."""
    rows, columns = _SKY_ROWS, _SKY_COLUMNS
    y = (np.arange(rows) + 0.5) * height / rows
    x = (np.arange(columns) + 0.5) * width / columns
    slope_y = (y - view.matrix[1, 2]) / view.scale
    slope_x = (x - view.matrix[0, 2]) / view.scale
    rays = np.stack(np.broadcast_arrays(slope_x[None], slope_y[:, None], 1.0), -1)
    rays = rays @ view.camera.rotation
    rays /= np.linalg.norm(rays, axis=2, keepdims=True)
    rise = np.clip(rays[..., 1:2] / 0.5, 0, 1) ** 0.7
    sky = light.sky_low * (1 - rise) + light.sky_top * rise
    near_sun = np.clip(rays @ light.direction, 0, 1)[..., None]
    glow = np.array([150.0, 205, 255]) * float(light.sun.max())
    sky = sky + glow * (near_sun**8 * 0.35 + near_sun**90 * 0.8)
    sky = sky * (1 - (cover := _clouds(rng, light, rays))) + _cloud_color(light) * cover
    small = np.clip(sky, 0, 255).astype(np.uint8)
    image: Image = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    if light.time == "night":
        _draw_stars(rng, image, view)
    return image


def _cloud_color(light: Light) -> Array:
    white = np.array([252.0, 250, 248])
    return np.clip(white * (light.ambient * 0.9 + light.sun * 0.7), 0, 255)


def _clouds(rng: np.random.Generator, light: Light, rays: Array) -> Array:
    """Return the cloud cover of each ray, 0 to 1, from four octaves of smooth noise."""
    noise = sum(
        cv2.resize(rng.random((size, size), np.float32), (256, 256), interpolation=cv2.INTER_CUBIC)
        / (octave + 1.6)
        for octave, size in enumerate((6, 13, 29, 61))
    )
    height = np.maximum(rays[..., 1], 0.03)
    u = np.mod(rays[..., 0] / height * 9 + 128, 255).astype(np.float32)
    v = np.mod(rays[..., 2] / height * 9 + 40, 255).astype(np.float32)
    field = cv2.remap(np.asarray(noise, np.float32), u, v, cv2.INTER_LINEAR)
    level = {"overcast": 0.62, "night": 1.12}.get(light.time, rng.uniform(0.86, 1.08))
    cover = np.clip((field - level) * 3.2, 0, 0.85)
    return np.asarray(cover * np.clip((rays[..., 1] - 0.02) * 9, 0, 1))[..., None]


def _draw_stars(rng: np.random.Generator, image: Image, view: View) -> None:
    rows, columns = image.shape[:2]
    positions = rng.random((90, 2)) * [columns, rows]
    size = max(1, round(rows / 720))
    for x, y in positions:
        cv2.circle(image, (int(x), int(y)), size - 1, (150, 140, 130), -1, cv2.LINE_AA)


def _draw_ground(canvas: Canvas, rng: np.random.Generator, street: Street) -> None:
    meadow, slab = np.array([66.0, 104, 88]), np.array([150.0, 156, 160]) * rng.uniform(0.9, 1.05)
    asphalt = np.array([92.0, 90, 88]) * rng.uniform(0.85, 1.12)
    canvas.ground((-400, 400), (-60, 600), meadow)
    if street.open_side:
        edge = street.open_side * street.wall
        canvas.ground((min(edge, edge * 6), max(edge, edge * 6)), (-60, street.end), slab * 0.94)
        _draw_tiles(canvas, (edge, edge + street.open_side * 14), slab * 0.8, 2.4)
    for side in (-1, 1):
        x = (side * street.kerb, side * street.wall)
        canvas.ground((min(x), max(x)), (-60, street.end), slab)
        _draw_tiles(canvas, x, slab * 0.88, 1.2)
    canvas.ground((-street.kerb, street.kerb), (-60, street.end), asphalt)
    _draw_road_surface(canvas, rng, street, asphalt)
    bikes = np.array([86.0, 84, 140]) if rng.random() < 0.6 else asphalt * 1.08
    for side in (-1, 1):
        low, high = sorted((side * (street.road + 0.12), side * (street.kerb - 0.1)))
        canvas.ground((low, high), (-60, street.end), bikes)
        _draw_kerb(canvas, street, side)
    _draw_markings(canvas, street)


def _strips(x: Array, z: Array, half_width: float, length: float) -> Array:
    """Return N × 4 × 3 corners of ground rectangles centerd on x and starting at z, in meters."""
    x, z = np.broadcast_arrays(np.asarray(x, np.float64), np.asarray(z, np.float64))
    corners = [(-half_width, 0.0), (half_width, 0.0), (half_width, length), (-half_width, length)]
    return np.stack([np.stack([x + dx, x * 0, z + dz], -1) for dx, dz in corners], axis=-2)


def _draw_tiles(canvas: Canvas, x: tuple[float, float], color: Array, pitch: float) -> None:
    left, right = min(x), max(x)
    middle, half = (left + right) / 2, (right - left) / 2
    z = np.arange(-24.0, 46.0, pitch)
    canvas.quads(_strips(np.full(len(z), middle), z, half, 0.035), color, UP)
    lines = np.arange(left + pitch, right - 0.3, pitch)
    for start in (-24.0, 4.0, 14.0, 28.0):
        canvas.quads(_strips(lines, np.full(len(lines), start), 0.018, 14.0), color, UP)


def _draw_road_surface(
    canvas: Canvas, rng: np.random.Generator, street: Street, asphalt: Array
) -> None:
    """Draw repairs, cracks and wheel tracks on the road."""
    for lane in range(street.lanes):
        for side in (-1, 1):
            for off in (-0.8, 0.8):
                x = np.array([street.lane_x(side, lane) + off])
                for start in np.arange(-24.0, street.end - 8, 8.0):
                    canvas.quads(_strips(x, np.array([start]), 0.28, 8.0), asphalt * 0.95, UP)
    count = 26
    x, z = rng.uniform(-street.road, street.road, count), rng.uniform(-20, 48, count)
    for k in range(count):
        tone = asphalt * rng.uniform(0.84, 1.1)
        size = rng.uniform(0.2, 0.9), rng.uniform(0.6, 4.0)
        canvas.quads(_strips(x[k : k + 1], z[k : k + 1], *size), tone, UP)


def _draw_kerb(canvas: Canvas, street: Street, side: int) -> None:
    x = side * street.kerb
    for near, far, start in ((0.0, 0.26, 0.0), (-0.06, 0.0, 0.0)):
        edge = sorted((x + side * near, x + side * far))
        tone = np.array([182.0, 184, 186]) if near == 0 else np.array([70.0, 70, 70])
        canvas.ground((edge[0], edge[1]), (-60 + start, street.end), tone)


def _draw_markings(canvas: Canvas, street: Street) -> None:
    """Draw lane markings and a zebra crossing."""
    end = street.end
    for x in (-0.12, 0.12):
        canvas.ground((x - 0.05, x + 0.05), (-60, end), _WHITE)
    for side in (-1, 1):
        edge = side * (street.road + 0.02)
        canvas.ground((edge - 0.07, edge + 0.07), (-60, end), _WHITE)
        if street.lanes > 1:
            z = np.arange(-25.0, end, 6.0)
            canvas.quads(_strips(np.full(len(z), side * 3.3), z, 0.07, 3.0), _WHITE, UP)
        stop = side * street.road / 2
        first = street.zebra - 1.6 if side > 0 else street.zebra + 5.2
        bar = _strips(np.array([stop]), np.array([first]), street.road / 2 - 0.3, 0.4)
        canvas.quads(bar, _WHITE, UP)
    bars = np.arange(-street.kerb + 0.5, street.kerb - 0.3, 1.0)
    z = np.full(len(bars), street.zebra)
    canvas.quads(_strips(bars, z, 0.26, 4.0), _WHITE, UP)


def _draw_shadows(canvas: Canvas, street: Street, trees: list[tuple[float, float]]) -> None:
    """Draw soft shadows of the trees and contact shadows of the houses."""
    light = canvas.light
    across = light.direction[[0, 2]] / max(float(light.direction[1]), 0.35)
    angle = np.linspace(0, 2 * np.pi, 14, endpoint=False)
    ring = np.column_stack([np.cos(angle) * 1.9, np.zeros(14), np.sin(angle) * 1.9])
    crowns = []
    for x, z in trees:
        drop = np.array([x - across[0] * 3.8, 0.0, z - across[1] * 3.8])
        crowns.append(ring * [1.0, 0, 1.0] + drop)
    canvas.darken(crowns, light.shadow * 0.8, 0.008)
    feet = []
    for side in (-1, 1):
        if side != street.open_side:
            x, inner = side * street.wall, side * (street.wall - 0.9)
            feet.append(np.array([[x, 0, -60], [inner, 0, -60], [inner, 0, street.end],
                                  [x, 0, street.end]], np.float64))  # fmt: skip
    canvas.darken(feet, 0.22, 0.012)
