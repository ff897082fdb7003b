"""Lighting by time of day: sky colors, position of the sun and brightness of lamps."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["TIMES", "Light"]

Array = NDArray[np.float64]

TIMES = ("noon", "morning", "overcast", "dusk", "night")
"""Times of day of a scene."""


@dataclass(frozen=True, slots=True, eq=False)
class Light:
    """The lighting of a scene; colors are blue, green, red.

    Attributes:
        time: One of `TIMES`.
        sky_top: Color at the zenith, 0 to 255.
        sky_low: Color at the horizon.
        haze: Color of distant surfaces.
        haze_length: Distance in meters at which haze makes up about two thirds of a color.
        ambient: Ambient light, factor per channel.
        sun: Sunlight, factor per channel.
        direction: Unit vector towards the sun.
        shadow: Darkness of cast shadows, 0 to 1.
        lamps: Brightness of lamps and windows, 0 to 1.
    """

    time: str
    sky_top: Array
    sky_low: Array
    haze: Array
    haze_length: float
    ambient: Array
    sun: Array
    direction: Array
    shadow: float
    lamps: float

    @classmethod
    def sample(cls, rng: np.random.Generator) -> Light:
        """Sample a time of day and its variations."""
        time = TIMES[int(rng.choice(len(TIMES), p=[0.28, 0.2, 0.2, 0.17, 0.15]))]
        top, low, haze, ambient, sun, elevation, shadow, lamps = _PALETTE[time]
        azimuth = rng.uniform(0, 2 * math.pi)
        rise = math.radians(elevation + rng.uniform(-6, 6))
        direction = np.array(
            [math.cos(rise) * math.sin(azimuth), math.sin(rise), math.cos(rise) * math.cos(azimuth)]
        )
        tint = rng.uniform(0.94, 1.06, 3)
        exposure = rng.uniform(0.9, 1.08)
        length = rng.uniform(150, 420) * (0.6 if time == "overcast" else 1.0)
        return cls(
            time,
            sky_top=np.array(top) * tint,
            sky_low=np.array(low) * tint,
            haze=np.array(haze) * tint,
            haze_length=length,
            ambient=np.array(ambient) * exposure,
            sun=np.array(sun) * exposure,
            direction=direction,
            shadow=shadow,
            lamps=lamps,
        )

    def shade(self, colors: Array, normals: Array) -> Array:
        """Return N × 3 shaded colors of surfaces with N × 3 colors and unit normals."""
        facing = np.maximum(normals @ self.direction, 0.0)[:, None]
        openness = (0.82 + 0.18 * normals[:, 1])[:, None]
        return np.clip(colors * (self.ambient * openness + self.sun * facing), 0, 255)

    @property
    def underpass(self) -> Array:
        """Color of the underpass of the bridge."""
        return self.ambient * 52.0

    def fade(self, colors: Array, distance: float, hidden: float = 0.0) -> Array:
        """Blend N × 3 colors with the haze at a distance in meters.

        `hidden` is the fraction, 0 to 1, to blend with the color of the underpass.
        """
        clear = math.exp(-((max(distance, 0.0) / self.haze_length) ** 1.2))
        hazy = colors * clear + self.haze * (1.0 - clear)
        return hazy + (self.underpass - hazy) * hidden if hidden else hazy


_Row = tuple[
    tuple[int, int, int],
    tuple[int, int, int],
    tuple[int, int, int],
    tuple[float, float, float],
    tuple[float, float, float],
    float,
    float,
    float,
]
# sky_top, sky_low, haze, ambient, sun, elevation of the sun in degrees, shadow, lamps
_PALETTE: dict[str, _Row] = {
    "noon": (
        (205, 138, 72), (240, 214, 184), (232, 212, 192),
        (0.70, 0.67, 0.64), (0.44, 0.52, 0.56), 52.0, 0.50, 0.0,
    ),
    "morning": (
        (214, 170, 118), (196, 214, 240), (200, 210, 226),
        (0.66, 0.63, 0.62), (0.30, 0.46, 0.60), 27.0, 0.42, 0.0,
    ),
    "overcast": (
        (176, 166, 156), (214, 210, 206), (205, 202, 198),
        (0.92, 0.90, 0.88), (0.05, 0.05, 0.05), 60.0, 0.28, 0.1,
    ),
    "dusk": (
        (122, 72, 60), (110, 150, 238), (128, 122, 168),
        (0.54, 0.42, 0.42), (0.10, 0.24, 0.42), 11.0, 0.26, 0.75,
    ),
    "night": (
        (48, 26, 14), (84, 56, 44), (66, 46, 40),
        (0.58, 0.49, 0.46), (0.06, 0.05, 0.04), 50.0, 0.30, 1.0,
    ),
}  # fmt: skip
