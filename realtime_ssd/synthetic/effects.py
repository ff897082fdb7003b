"""Effects on the rendered street: shadows, bloom of lamps, vignette and sensor noise."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import cv2
import numpy as np

from realtime_ssd.core.frames import Image
from realtime_ssd.synthetic.lighting import Light
from realtime_ssd.synthetic.projection import NEAR, Array, View
from realtime_ssd.synthetic.shapes import PlacedSolid, fill
from realtime_ssd.synthetic.traffic import Actor

__all__ = ["Effects"]

_DISC_RADIUS = 32
_VIGNETTE_STRENGTH = 0.22


class Effects:
    """The effects of one scene at one size.

    Args:
        width: Width of the frames in pixels.
        height: Height of the frames in pixels.
        seed: Seed of the noise.
        light: Lighting of the scene.
    """

    def __init__(self, width: int, height: int, seed: int, light: Light) -> None:
        self.width, self.height, self.light = width, height, light
        self._seed = seed
        self._discs: dict[tuple[int, int, int], Image] = {}

    def draw_shadows(self, image: Image, view: View, actors: Sequence[Actor]) -> None:
        """Darken the ground under and next to the actors with a blurred mask of half the size."""
        size = (max(2, self.width // 2), max(2, self.height // 2))
        mask = np.full((size[1], size[0]), 255, np.uint8)
        ratio = np.array(size) / [self.width, self.height]
        shadows = [self._shadow(actor) for actor in actors if actor.heading]
        cast = round(255 * (1 - self.light.shadow))
        under = round(255 * (1 - min(0.75, self.light.shadow + 0.2)))
        for tone, count in ((cast, 8), (under, 4)):
            for shadow in shadows:
                points = view.polygon(shadow[:count]) if count == 4 else view.hull(shadow)
                if points is not None:
                    fill(mask, points * ratio, (tone,))
        soft = 2 * round(size[1] * 0.008) + 1
        mask = cv2.resize(cv2.blur(mask, (soft, soft)), (self.width, self.height))
        cv2.multiply(image, cv2.merge([mask, mask, mask]), dst=image, scale=1 / 255)

    def _shadow(self, actor: Actor) -> Array:
        """Return 8 × 3 points: the footprint, and the footprint moved away from the sun."""
        x0, z0, x1, z1 = actor.footprint
        if actor.height < 2.0 and x1 - x0 < 1.0:
            x0, x1 = x0 + 0.12, x1 - 0.12
        sun = self.light.direction
        length = actor.height * 0.8 / max(float(sun[1]), 0.4)
        dx, dz = -sun[0] * length, -sun[2] * length
        foot = [(x0, z0), (x1, z0), (x1, z1), (x0, z1)]
        return np.array([(x, 0, z) for x, z in foot] + [(x + dx, 0, z + dz) for x, z in foot])

    def draw_bloom(self, image: Image, view: View, actor: Actor) -> None:
        """Add the bloom of the lamps of an actor, before nearer actors are drawn over it."""
        for center, radius, color in self._lamps(actor, view):
            self._add_disc(image, center, radius, color)

    def _lamps(self, actor: Actor, view: View) -> list[tuple[Array, float, tuple[int, int, int]]]:
        """Return center and radius in pixels and color of the lamps that face the camera."""
        shape, signal = actor.shape, actor.label == "traffic light"
        if not isinstance(shape, PlacedSolid) or actor.hidden > 0.5:
            return []
        if not signal and self.light.lamps < 0.5:
            return []
        lamps = []
        for k in np.flatnonzero(shape.solid.lamps >= 0.8):
            corners = shape.vertices[shape.solid.starts[k] : shape.solid.starts[k + 1]]
            middle = corners.mean(axis=0)
            point = view.camera.to_camera(middle[None])
            if point[0, 2] < NEAR or (view.camera.position - middle) @ shape.normals[k] <= 0:
                continue
            radius = (0.55 if signal else 0.8) * view.scale / float(point[0, 2])
            blue, green, red = shape.solid.colors[k].astype(int).tolist()
            lamps.append((view.pixels(point)[0], radius, (blue, green, red)))
        return lamps

    def _add_disc(
        self, image: Image, center: Array, radius: float, color: tuple[int, int, int]
    ) -> None:
        """Add a soft disc of light with a sub-pixel center."""
        if not 1.0 < radius < 2 * self.height:
            return
        x0, y0 = np.maximum(np.floor(center - radius).astype(int), 0).tolist()
        x1, y1 = np.minimum(
            np.ceil(center + radius).astype(int), [self.width, self.height]
        ).tolist()
        if x1 <= x0 or y1 <= y0:
            return
        ratio = _DISC_RADIUS / radius
        warp = np.array([
            [ratio, 0, (x0 + 0.5 - center[0]) * ratio + _DISC_RADIUS],
            [0, ratio, (y0 + 0.5 - center[1]) * ratio + _DISC_RADIUS],
        ])  # fmt: skip
        light = cv2.warpAffine(
            self._disc(color), warp, (x1 - x0, y1 - y0),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        )  # fmt: skip
        region = image[y0:y1, x0:x1]
        cv2.add(region, light, dst=region)

    def _disc(self, color: tuple[int, int, int]) -> Image:
        if color not in self._discs:
            strength = (0.25 + 0.75 * self.light.lamps) / 255
            tinted = _DISC[..., None] * (np.array(color) * strength)
            self._discs[color] = tinted.astype(np.uint8)
        return self._discs[color]

    def add_vignette_and_noise(self, image: Image, i: int) -> None:
        """Darken the corners and add sensor noise; `i` is the index of the frame."""
        cv2.multiply(image, self._vignette, dst=image, scale=1 / 255)
        rng = np.random.default_rng([self._seed, 5, i % (1 << 32)])
        y, x = rng.integers(0, 64, 2).tolist()
        part = self._noise[y : y + self.height, x : x + self.width]
        cv2.add(image, part, dst=image)
        cv2.subtract(image, self._noise_offset, dst=image)

    @cached_property
    def _vignette(self) -> Image:
        y = (np.arange(self.height, dtype=np.float32) + 0.5) / self.height - 0.5
        x = (np.arange(self.width, dtype=np.float32) + 0.5) / self.width - 0.5
        fall = 1 - _VIGNETTE_STRENGTH * (2 * (y[:, None] ** 2 + x[None] ** 2)) ** 1.3
        channel = (fall * 255).astype(np.uint8)
        vignette: Image = cv2.merge([channel, channel, channel])
        return vignette

    @cached_property
    def _noise_offset(self) -> Image:
        offset: Image = np.full((self.height, self.width, 3), _NOISE_MEAN, np.uint8)
        return offset

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
    grid = np.arange(-_DISC_RADIUS, _DISC_RADIUS + 1) / _DISC_RADIUS
    far = np.minimum(np.hypot(grid[None], grid[:, None]), 1.0)
    return np.asarray(255 * (0.55 * (1 - far) ** 2.2 + 0.35 * (1 - far) ** 8), np.uint8)


_DISC = _soft_disc()
