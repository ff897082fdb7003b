"""What is laid over the painted street: shadows, glowing lamps, vignette and sensor noise."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import cv2
import numpy as np

from realtime_ssd.core.frames import Image
from realtime_ssd.synthetic.camera import NEAR, Array, View
from realtime_ssd.synthetic.light import Light
from realtime_ssd.synthetic.shapes import Placed, fill
from realtime_ssd.synthetic.traffic import Actor

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
        self._discs: dict[tuple[int, int, int], Image] = {}

    def shadows(self, image: Image, view: View, actors: Sequence[Actor]) -> None:
        """Darken the ground below and beside the actors, in a soft mask of half the size."""
        size = (max(2, self.width // 2), max(2, self.height // 2))
        mask = np.full((size[1], size[0]), 255, np.uint8)
        ratio = np.array(size) / [self.width, self.height]
        grounds = [self._shadow(actor) for actor in actors if actor.heading]
        cast = round(255 * (1 - self.light.shadow))
        under = round(255 * (1 - min(0.75, self.light.shadow + 0.2)))
        for tone, count in ((cast, 8), (under, 4)):
            for ground in grounds:
                points = view.polygon(ground[:count]) if count == 4 else view.hull(ground)
                if points is not None:
                    fill(mask, points * ratio, (tone,))
        soft = 2 * round(size[1] * 0.008) + 1
        mask = cv2.resize(cv2.blur(mask, (soft, soft)), (self.width, self.height))
        cv2.multiply(image, cv2.merge([mask, mask, mask]), dst=image, scale=1 / 255)

    def _shadow(self, actor: Actor) -> Array:
        """8 × 3: the footprint on the ground, and the same moved away from the sun."""
        x0, z0, x1, z1 = actor.footprint
        if actor.height < 2.0 and x1 - x0 < 1.0:
            x0, x1 = x0 + 0.12, x1 - 0.12
        sun = self.light.direction
        length = actor.height * 0.8 / max(float(sun[1]), 0.4)
        dx, dz = -sun[0] * length, -sun[2] * length
        foot = [(x0, z0), (x1, z0), (x1, z1), (x0, z1)]
        return np.array([(x, 0, z) for x, z in foot] + [(x + dx, 0, z + dz) for x, z in foot])

    def glow(self, image: Image, view: View, actor: Actor) -> None:
        """Add the bloom of an actor's lamps; nearer things are painted over it afterwards."""
        for spot, radius, colour in self._lamps(actor, view):
            self._bloom(image, spot, radius, colour)

    def _lamps(self, actor: Actor, view: View) -> list[tuple[Array, float, tuple[int, int, int]]]:
        """Pixel, radius in pixels and colour of the lamps of an actor that face the eye."""
        thing, signal = actor.thing, actor.label == "traffic light"
        if not isinstance(thing, Placed) or actor.hidden > 0.5:
            return []
        if not signal and self.light.lamps < 0.5:
            return []
        found = []
        for k in np.flatnonzero(thing.solid.lamps >= 0.8):
            corners = thing.vertices[thing.solid.starts[k] : thing.solid.starts[k + 1]]
            middle = corners.mean(axis=0)
            seen = view.camera.see(middle[None])
            if seen[0, 2] < NEAR or (view.camera.position - middle) @ thing.normals[k] <= 0:
                continue
            radius = (0.55 if signal else 0.8) * view.scale / float(seen[0, 2])
            blue, green, red = thing.solid.colours[k].astype(int).tolist()
            found.append((view.pixels(seen)[0], radius, (blue, green, red)))
        return found

    def _bloom(
        self, image: Image, spot: Array, radius: float, colour: tuple[int, int, int]
    ) -> None:
        """Add a soft disc of light at a sub-pixel place."""
        if not 1.0 < radius < 2 * self.height:
            return
        x0, y0 = np.maximum(np.floor(spot - radius).astype(int), 0).tolist()
        x1, y1 = np.minimum(np.ceil(spot + radius).astype(int), [self.width, self.height]).tolist()
        if x1 <= x0 or y1 <= y0:
            return
        ratio = _REACH / radius
        warp = np.array([
            [ratio, 0, (x0 + 0.5 - spot[0]) * ratio + _REACH],
            [0, ratio, (y0 + 0.5 - spot[1]) * ratio + _REACH],
        ])  # fmt: skip
        light = cv2.warpAffine(
            self._disc(colour), warp, (x1 - x0, y1 - y0),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        )  # fmt: skip
        region = image[y0:y1, x0:x1]
        cv2.add(region, light, dst=region)

    def _disc(self, colour: tuple[int, int, int]) -> Image:
        if colour not in self._discs:
            strength = (0.25 + 0.75 * self.light.lamps) / 255
            tinted = _DISC[..., None] * (np.array(colour) * strength)
            self._discs[colour] = tinted.astype(np.uint8)
        return self._discs[colour]

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
