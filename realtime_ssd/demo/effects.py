"""What is laid over the painted street: shadows, glowing lamps, vignette and sensor noise."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import cv2
import numpy as np

from realtime_ssd.demo.camera import Array, View
from realtime_ssd.demo.light import Light
from realtime_ssd.demo.shapes import fill
from realtime_ssd.demo.traffic import Actor
from realtime_ssd.frames import Image

__all__ = ["Effects"]


class Effects:
    """The effects of one scene at one size."""

    def __init__(self, width: int, height: int, seed: int, light: Light) -> None:
        self.width, self.height, self.light = width, height, light
        self._rng_key = [seed, 991]

    def shadows(self, image: Image, view: View, actors: Sequence[Actor]) -> None:
        """Darken the ground below and beside the actors."""

    def glow(self, image: Image, view: View, actors: Sequence[Actor]) -> None:
        """Add the light of lamps."""

    def lens(self, image: Image, i: int) -> None:
        """Darken the corners and add the sensor's noise."""
