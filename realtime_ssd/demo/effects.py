"""What is laid over the painted street: shadows, glowing lamps, vignette and sensor noise."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import cv2
import numpy as np

from realtime_ssd.demo.camera import NEAR, Array, View
from realtime_ssd.demo.light import Light
from realtime_ssd.demo.shapes import Placed, fill
from realtime_ssd.demo.traffic import Actor
from realtime_ssd.frames import Image

__all__ = ["Effects"]

_REACH = 32
_FALL = 0.22


class Effects:
    """The effects of one scene at one size.

    Args:
        width: Of the frames in pixels.
        height: Of the frames in pixels.
        seed: Of the noise.
        light: Light of the scene.
    """

    def __init__(self, width: int, height: int, seed: int, light: Light) -> None:
        self.width, self.height, self.light = width, height, light
        self._seed = seed

    def shadows(self, image: Image, view: View, actors: Sequence[Actor]) -> None:
        """Darken the ground below and beside the actors, in a soft mask of half the size."""
        size = (max(2, self.width // 2), max(2, self.height // 2))
        mask = np.full((size[1], size[0]), 255, np.uint8)
        ratio = np.array(size) / [self.width, self.height]
        cast = round(255 * (1 - self.light.shadow))
        under = round(255 * (1 - min(0.75, self.light.shadow + 0.2)))
        for tone, reach in ((cast, 1.0), (under, 0.0)):
            for actor in actors:
                points = view.polygon(self._shadow(actor, reach)) if actor.heading else None
                if points is not None:
                    hull = cv2.convexHull((points * ratio).astype(np.float32)).reshape(-1, 2)
                    fill(mask, hull, (tone,))
        soft = 2 * round(size[1] * 0.008) + 1
        mask = cv2.resize(cv2.blur(mask, (soft, soft)), (self.width, self.height))
        cv2.multiply(image, cv2.merge([mask, mask, mask]), dst=image, scale=1 / 255)

    def _shadow(self, actor: Actor, reach: float) -> Array:
        """Ground polygon of a footprint, stretched away from the sun by `reach` of its length."""
        x0, z0, x1, z1 = actor.footprint
        shrink = 0.12 if actor.height < 2.0 and x1 - x0 < 1.0 else 0.0
        base = np.array([
            [x0 + shrink, 0, z0], [x1 - shrink, 0, z0], [x1 - shrink, 0, z1], [x0 + shrink, 0, z1]
        ])  # fmt: skip
        if not reach:
            return base
        sun = self.light.direction
        drop = sun[[0, 2]] / max(float(sun[1]), 0.4) * actor.height * 0.8 * reach
        moved = base - [drop[0], 0, drop[1]]
        ground = np.vstack([base, moved])[:, [0, 2]].astype(np.float32)
        hull = cv2.convexHull(ground).reshape(-1, 2)
        return np.column_stack([hull[:, 0], np.zeros(len(hull)), hull[:, 1]]).astype(np.float64)

    def glow(self, image: Image, view: View, actors: Sequence[Actor]) -> None:
        """Add the bloom of lamps, and by night the pools of head lamps on the road."""
        lamps = [lamp for actor in actors for lamp in self._lamps(actor, view)]
        strength = 0.25 + 0.75 * self.light.lamps
        for spot, depth, size, colour in lamps:
            radius = size * view.scale / depth
            self._bloom(image, spot, radius, colour * strength)

    def _lamps(self, actor: Actor, view: View) -> list[tuple[Array, float, float, Array]]:
        """Pixel, depth, size in metres and colour of the lamps of an actor that face the eye."""
        thing = actor.thing
        if not isinstance(thing, Placed) or actor.hidden > 0.5:
            return []
        if actor.label != "traffic light" and self.light.lamps < 0.5:
            return []
        found = []
        for k in np.flatnonzero(thing.solid.lamps >= 0.8):
            corners = thing.vertices[thing.solid.starts[k] : thing.solid.starts[k + 1]]
            middle = corners.mean(axis=0)
            seen = view.camera.see(middle[None])
            if seen[0, 2] < NEAR or (view.camera.position - middle) @ thing.normals[k] <= 0:
                continue
            size = 0.55 if actor.label == "traffic light" else 0.8
            found.append((view.pixels(seen)[0], float(seen[0, 2]), size, thing.solid.colours[k]))
        return found

    def _bloom(self, image: Image, spot: Array, radius: float, colour: Array) -> None:
        """Add a soft disc of light at a sub-pixel place."""
        if not 0.5 < radius < 2 * self.height:
            return
        x0, y0 = np.maximum(np.floor(spot - radius).astype(int), 0)
        x1, y1 = np.minimum(np.ceil(spot + radius).astype(int), [self.width, self.height])
        if x1 <= x0 or y1 <= y0:
            return
        ratio = _REACH / radius
        warp = np.array([
            [ratio, 0, (x0 + 0.5 - spot[0]) * ratio + _REACH],
            [0, ratio, (y0 + 0.5 - spot[1]) * ratio + _REACH],
        ])  # fmt: skip
        disc = cv2.warpAffine(
            _DISC, warp, (int(x1 - x0), int(y1 - y0)), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        )
        tinted = cv2.merge([cv2.convertScaleAbs(disc, alpha=float(c) / 255) for c in colour])
        region = image[y0:y1, x0:x1]
        cv2.add(region, tinted, dst=region)

    def lens(self, image: Image, i: int) -> None:
        """Darken the corners and add the sensor's noise."""
        cv2.multiply(image, self._vignette, dst=image, scale=1 / 255)
        rng = np.random.default_rng([self._seed, 5, i % (1 << 32)])
        y, x = rng.integers(0, 64, 2).tolist()
        part = self._noise[y : y + self.height, x : x + self.width]
        cv2.add(image, part, dst=image)
        cv2.subtract(image, self._level, dst=image)

    @cached_property
    def _vignette(self) -> Image:
        y = (np.arange(self.height, dtype=np.float32) + 0.5) / self.height - 0.5
        x = (np.arange(self.width, dtype=np.float32) + 0.5) / self.width - 0.5
        fall = 1 - _FALL * (2 * (y[:, None] ** 2 + x[None] ** 2)) ** 1.3
        one = (fall * 255).astype(np.uint8)
        vignette: Image = cv2.merge([one, one, one])
        return vignette

    @cached_property
    def _level(self) -> Image:
        level: Image = np.full((self.height, self.width, 3), _NOISE_MEAN, np.uint8)
        return level

    @cached_property
    def _noise(self) -> Image:
        rng = np.random.default_rng([self._seed, 6])
        spread = rng.uniform(0.8, 2.0) + 2.2 * (self.light.lamps > 0.5)
        shape = (self.height + 64, self.width + 64, 3)
        noise = rng.standard_normal(shape, np.float32) * np.float32(spread) + np.float32(
            _NOISE_MEAN
        )
        grain: Image = np.clip(np.rint(noise), 0, 2 * _NOISE_MEAN).astype(np.uint8)
        return grain


_NOISE_MEAN = 12


def _soft_disc() -> Image:
    grid = np.arange(-_REACH, _REACH + 1) / _REACH
    far = np.minimum(np.hypot(grid[None], grid[:, None]), 1.0)
    return np.asarray(255 * (0.55 * (1 - far) ** 2.2 + 0.35 * (1 - far) ** 8), np.uint8)


_DISC = _soft_disc()
