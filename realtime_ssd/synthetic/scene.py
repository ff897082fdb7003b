"""`StreetScene`: frames of an endless procedural street, with ground truth."""

from __future__ import annotations

from functools import cached_property

import cv2
import numpy as np

from realtime_ssd.core.frames import Image
from realtime_ssd.synthetic.background import draw_background
from realtime_ssd.synthetic.effects import Effects
from realtime_ssd.synthetic.ground_truth import ProjectedActor, TruthBox, depth_order, visible_boxes
from realtime_ssd.synthetic.lighting import Light
from realtime_ssd.synthetic.projection import MARGIN, Array, Sway, View
from realtime_ssd.synthetic.street_plan import Street, camera_pose, place_traffic_lights
from realtime_ssd.synthetic.traffic import Traffic

__all__ = ["LABELS", "StreetScene"]

LABELS = ("person", "cyclist", "car", "bus", "truck", "traffic light")
"""Labels of the objects in a scene."""
_POSES = ("gantry", "corner", "square")
_MIN_HEIGHT = 0.003


class StreetScene:
    """A street with traffic, reproducible at any size and frame rate.

    Frames can be rendered in any order. The same seed, size, frame rate and frame index give the
    same bytes. The geometry is in meters, so a larger frame shows the same scene in more detail.

    Args:
        width: Width of the frames in pixels.
        height: Height of the frames in pixels.
        seed: Seed of houses, lighting, traffic and camera.
        fps: Frames per second of scene time.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> scene = StreetScene(320, 180, seed=7)
        >>> image, truth = scene.frame(30)
        >>> image.shape
        (180, 320, 3)
    """

    def __init__(self, width: int, height: int, *, seed: int = 0, fps: float = 30.0) -> None:
        if width < 1 or height < 1 or seed < 0 or fps <= 0:
            raise ValueError(
                "`width`, `height` and `fps` must be above 0 and `seed` at least 0, not "
                f"{width}, {height}, {fps} and {seed}"
            )
        self.width, self.height, self.seed, self.fps = width, height, seed, fps
        plan, background, traffic = np.random.default_rng([seed, 77]).spawn(3)
        self._background_rng = background
        pose = _POSES[int(plan.choice(3, p=[0.34, 0.36, 0.3]))]
        self.street = Street.sample(plan, pose)
        self.camera = camera_pose(plan, self.street, pose)
        self.light = Light.sample(plan)
        self._sway = Sway.sample(plan)
        lights = place_traffic_lights(plan, self.street, self.camera)
        self._traffic = Traffic.sample(seed, traffic, self.street, lights)
        scale = self.camera.pixels_per_slope(width, height)
        self._static_matrix = np.array([[scale, 0, width / 2], [0, scale, height / 2]])

    def render(self, i: int) -> Image:
        """Return frame `i`: height × width × 3, uint8, BGR."""
        return self._render(i, *self._project(i))

    def truth(self, i: int) -> list[TruthBox]:
        """Return the ground truth of frame `i`, measured on rendered silhouettes."""
        return visible_boxes(self._project(i)[1], self.width, self.height)

    def frame(self, i: int) -> tuple[Image, list[TruthBox]]:
        """Return frame `i` and its ground truth, faster than `render` and `truth` separately."""
        view, actors = self._project(i)
        return self._render(i, view, actors), visible_boxes(actors, self.width, self.height)

    def _project(self, i: int) -> tuple[View, list[ProjectedActor]]:
        """Return the projection of frame `i` and its actors from far to near."""
        time = i / self.fps
        view = View(self.camera, self._sway.matrix(self._static_matrix, time))
        size = np.array([self.width, self.height])
        actors = []
        for actor in self._traffic.actors(time, self._may_be_visible):
            projection = actor.shape.project(view)
            if projection is not None and _in_frame(projection.bounds, size):
                actors.append((actor, projection))
        order = depth_order([actor.footprint for actor, _ in actors], self.camera.position)
        return view, [actors[k] for k in order]

    def _may_be_visible(self, x: float, z: float, radius: float) -> bool:
        """Return whether a disc on the ground may be in the frame for any camera motion."""
        right_x, right_z, forward_x, forward_z, eye_x, eye_z, slope = self._view_cone
        dx, dz = x - eye_x, z - eye_z
        ahead = forward_x * dx + forward_z * dz
        aside = abs(right_x * dx + right_z * dz)
        return ahead > -radius and aside < slope * (max(ahead, 0.0) + 1.5) + radius

    @cached_property
    def _view_cone(self) -> tuple[float, ...]:
        """Right and forward directions, camera position and maximum slope on the ground plane."""
        (right, _, forward), eye = self.camera.rotation, self.camera.position
        slope = 1.02 * self.width / (2 * self._static_matrix[0, 0]) + 0.05
        plan = (right[0], right[2], forward[0], forward[2], eye[0], eye[2], slope)
        return tuple(float(value) for value in plan)

    def _render(self, i: int, view: View, actors: list[ProjectedActor]) -> Image:
        image = self._warped_background(view)
        self._effects.draw_shadows(image, view, [actor for actor, _ in actors])
        for actor, projection in actors:
            projection.draw(image, self.light, actor.hidden)
            self._effects.draw_bloom(image, view, actor)
        self._effects.add_vignette_and_noise(image, i)
        return image

    def _warped_background(self, view: View) -> Image:
        background, matrix = self._background
        frame_matrix = np.vstack([view.matrix, [0, 0, 1]])
        background_matrix = np.vstack([matrix, [0, 0, 1]])
        half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
        warp = np.linalg.inv(half) @ frame_matrix @ np.linalg.inv(background_matrix) @ half
        image: Image = cv2.warpAffine(
            background, warp[:2], (self.width, self.height), flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )  # fmt: skip
        return image

    @cached_property
    def _background(self) -> tuple[Image, Array]:
        margin = np.ceil(np.array([self.width, self.height]) * MARGIN)
        wide, high = (np.array([self.width, self.height]) + 2 * margin).astype(int).tolist()
        matrix = self._static_matrix + np.column_stack([np.zeros((2, 2)), margin])
        view = View(self.camera, matrix)
        return draw_background(
            self._background_rng, self.street, self.light, view, wide, high
        ), matrix

    @cached_property
    def _effects(self) -> Effects:
        return Effects(self.width, self.height, self.seed, self.light)


def _in_frame(bounds: Array, size: Array) -> bool:
    tall = bounds[3] - bounds[1] > _MIN_HEIGHT * size[1]
    return bool(tall and (bounds[2:] > 0).all() and (bounds[:2] < size).all())
