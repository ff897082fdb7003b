"""`StreetScene`: any frame of an endless procedural street, with its ground truth."""

from __future__ import annotations

from functools import cached_property

import cv2
import numpy as np

from realtime_ssd.core.frames import Image
from realtime_ssd.synthetic.background import paint_background
from realtime_ssd.synthetic.camera import MARGIN, Array, Sway, View
from realtime_ssd.synthetic.effects import Effects
from realtime_ssd.synthetic.light import Light
from realtime_ssd.synthetic.street_plan import Street, camera_pose, traffic_lights
from realtime_ssd.synthetic.traffic import Traffic
from realtime_ssd.synthetic.truth import Shown, TruthBox, depth_order, observe

__all__ = ["LABELS", "StreetScene"]

LABELS = ("person", "cyclist", "car", "bus", "truck", "traffic light")
"""The labels of the objects in a scene."""
_POSES = ("gantry", "corner", "square")
_SMALLEST = 0.003


class StreetScene:
    """A street with traffic, the same for the same seed, at any size and rate.

    Every frame can be asked for in any order; the same seed, size, rate and number give the same
    bytes. Geometry is kept in metres, so a larger picture shows the same scene in more detail.

    Args:
        width: Of the frames in pixels.
        height: Of the frames in pixels.
        seed: Draws houses, light, traffic and camera.
        fps: Frames per second of scene time.

    Example:
        >>> scene = StreetScene(320, 180, seed=7)
        >>> image, truth = scene.frame(30)
        >>> image.shape
        (180, 320, 3)
    """

    def __init__(self, width: int, height: int, *, seed: int = 0, fps: float = 30.0) -> None:
        if width < 1 or height < 1 or seed < 0 or fps <= 0:
            raise ValueError(
                f"a scene needs a size and rate above 0 and a seed of at least 0, not "
                f"{width}x{height}, {fps} frames per second, seed {seed}"
            )
        self.width, self.height, self.seed, self.fps = width, height, seed, fps
        plan, looks, crowd = np.random.default_rng([seed, 77]).spawn(3)
        self._looks = looks
        pose = _POSES[int(plan.choice(3, p=[0.34, 0.36, 0.3]))]
        self.street = Street.draw(plan, pose)
        self.camera = camera_pose(plan, self.street, pose)
        self.light = Light.draw(plan)
        self._sway = Sway.draw(plan)
        lights = traffic_lights(plan, self.street, self.camera)
        self._traffic = Traffic.draw(seed, crowd, self.street, lights)
        scale = self.camera.pixels_per_slope(width, height)
        self._still = np.array([[scale, 0, width / 2], [0, scale, height / 2]])

    def render(self, i: int) -> Image:
        """Paint frame `i`: height × width × 3, uint8, BGR."""
        return self._paint(i, *self._stage(i))

    def truth(self, i: int) -> list[TruthBox]:
        """What is visible in frame `i`, measured on its painted silhouettes."""
        return observe(self._stage(i)[1], self.width, self.height)

    def frame(self, i: int) -> tuple[Image, list[TruthBox]]:
        """Frame `i` and its truth, cheaper than one after the other."""
        view, shown = self._stage(i)
        return self._paint(i, view, shown), observe(shown, self.width, self.height)

    def _stage(self, i: int) -> tuple[View, list[Shown]]:
        """The projection of frame `i`, and what stands in it from far to near."""
        time = i / self.fps
        view = View(self.camera, self._sway.matrix(self._still, time))
        size = np.array([self.width, self.height])
        shown = []
        for actor in self._traffic.actors(time, self._near):
            sketch = actor.thing.sketch(view)
            if sketch is not None and _in_frame(sketch.bounds, size):
                shown.append((actor, sketch))
        order = depth_order([actor.footprint for actor, _ in shown], self.camera.position)
        return view, [shown[k] for k in order]

    def _near(self, x: float, z: float, radius: float) -> bool:
        """Whether something on the ground may be in the picture, however the camera sways."""
        right_x, right_z, forward_x, forward_z, eye_x, eye_z, slope = self._cone
        dx, dz = x - eye_x, z - eye_z
        ahead = forward_x * dx + forward_z * dz
        aside = abs(right_x * dx + right_z * dz)
        return ahead > -radius and aside < slope * (max(ahead, 0.0) + 1.5) + radius

    @cached_property
    def _cone(self) -> tuple[float, ...]:
        """Right and forward directions, eye and widest slope on the ground plan."""
        (right, _, forward), eye = self.camera.rotation, self.camera.position
        slope = 1.02 * self.width / (2 * self._still[0, 0]) + 0.05
        plan = (right[0], right[2], forward[0], forward[2], eye[0], eye[2], slope)
        return tuple(float(value) for value in plan)

    def _paint(self, i: int, view: View, shown: list[Shown]) -> Image:
        image = self._backdrop(view)
        self._effects.shadows(image, view, [actor for actor, _ in shown])
        for actor, sketch in shown:
            sketch.paint(image, self.light, actor.hidden)
            self._effects.glow(image, view, actor)
        self._effects.lens(image, i)
        return image

    def _backdrop(self, view: View) -> Image:
        canvas, matrix = self._background
        ours = np.vstack([view.matrix, [0, 0, 1]])
        theirs = np.vstack([matrix, [0, 0, 1]])
        half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
        warp = np.linalg.inv(half) @ ours @ np.linalg.inv(theirs) @ half
        image: Image = cv2.warpAffine(
            canvas, warp[:2], (self.width, self.height), flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )  # fmt: skip
        return image

    @cached_property
    def _background(self) -> tuple[Image, Array]:
        margin = np.ceil(np.array([self.width, self.height]) * MARGIN)
        wide, high = (np.array([self.width, self.height]) + 2 * margin).astype(int).tolist()
        matrix = self._still + np.column_stack([np.zeros((2, 2)), margin])
        view = View(self.camera, matrix)
        return paint_background(self._looks, self.street, self.light, view, wide, high), matrix

    @cached_property
    def _effects(self) -> Effects:
        return Effects(self.width, self.height, self.seed, self.light)


def _in_frame(bounds: Array, size: Array) -> bool:
    tall = bounds[3] - bounds[1] > _SMALLEST * size[1]
    return bool(tall and (bounds[2:] > 0).all() and (bounds[:2] < size).all())
