"""Layout of the street, its camera and its traffic lights."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from realtime_ssd.synthetic import traffic_lights
from realtime_ssd.synthetic.projection import Array, Camera, View, vec
from realtime_ssd.synthetic.shapes import PlacedSolid

__all__ = ["Street", "camera_pose", "place_traffic_lights"]

LANE_WIDTH = 3.3


@dataclass(frozen=True, slots=True)
class Street:
    """Cross-section of the street; distances are in meters from the center of the road.

    Attributes:
        lanes: Number of lanes per direction.
        pavement: Width of the pavement.
        open_side: Side of the open square with the camera, -1 or +1; 0 without a square.
        end: z of the bridge at the end of the street.
        zebra: z of the near edge of the zebra crossing.
    """

    lanes: int
    pavement: float
    open_side: int
    end: float
    zebra: float

    @property
    def road(self) -> float:
        """Edge of the outermost lane."""
        return self.lanes * LANE_WIDTH

    @property
    def bikes(self) -> float:
        """Center of the cycle lane."""
        return self.road + 0.95

    @property
    def kerb(self) -> float:
        """Edge of the pavement."""
        return self.road + 1.9

    @property
    def trees(self) -> float:
        """Line of trees and lamps."""
        return self.kerb + self.pavement - 0.7

    @property
    def wall(self) -> float:
        """House fronts."""
        return self.kerb + self.pavement + 0.4

    def lane_x(self, side: int, lane: int) -> float:
        """Return the center of a lane; traffic drives on the right."""
        return side * LANE_WIDTH * (lane + 0.5)

    def walk_x(self, lane: int) -> float:
        """Return the line that people walk along: lane 0 near the kerb, lane 1 near the houses."""
        return self.kerb + (1.0, 2.3)[lane]

    @classmethod
    def sample(cls, rng: np.random.Generator, pose: str) -> Street:
        """Sample a street for a camera pose."""
        lanes = 1 if pose == "square" or rng.random() < 0.5 else 2
        side = int(rng.choice([-1, 1])) if pose == "square" else 0
        zebra = rng.uniform(-3.0, 10.0) if pose == "square" else rng.uniform(12.0, 24.0)
        return cls(lanes, rng.uniform(4.0, 5.2), side, rng.uniform(56.0, 70.0), zebra)


def camera_pose(rng: np.random.Generator, street: Street, pose: str) -> Camera:
    """Sample a camera: on a gantry, on a mast at the corner, or across a square."""
    side = street.open_side or int(rng.choice([-1, 1]))
    if pose == "gantry":
        x, high = rng.uniform(-1, 1) * street.road, rng.uniform(4.6, 6.4)
        yaw, pitch = -0.05 * x + rng.uniform(-0.12, 0.12), rng.uniform(0.12, 0.2)
        focal = rng.uniform(1.45, 1.8)
    elif pose == "corner":
        x, high = side * (street.kerb + rng.uniform(0.2, 1.2)), rng.uniform(3.3, 5.2)
        yaw, pitch = -side * rng.uniform(0.25, 0.62), rng.uniform(0.06, 0.15)
        focal = rng.uniform(1.3, 1.6)
    else:
        x, high = side * (street.kerb + rng.uniform(9.0, 13.0)), rng.uniform(2.6, 4.2)
        yaw, pitch = -side * rng.uniform(0.85, 1.3), rng.uniform(0.0, 0.08)
        focal = rng.uniform(1.35, 1.75)
    return Camera.from_angles(np.array([x, high, 0.0]), yaw, pitch, focal)


def place_traffic_lights(
    rng: np.random.Generator, street: Street, camera: Camera
) -> list[tuple[Array, Array, float, PlacedSolid]]:
    """Sample one to three traffic lights within the view of the camera.

    Returns:
        Position, rotation, offset of the cycle in seconds, and pole of each.
    """
    base = np.array([[camera.focal * 0.75, 0, 0.5], [0, camera.focal, 0.5]])
    view = View(camera, base)
    count = int(rng.integers(1, 4))
    lights: list[tuple[Array, Array, float, PlacedSolid]] = []
    columns: list[float] = []
    offset = rng.uniform(0, 14)
    for _ in range(160):
        side = int(rng.choice([-1, 1]))
        arm = 0.0 if rng.random() < 0.6 else -side * rng.uniform(1.6, 3.4)
        low = rng.uniform(2.3, 2.9) if not arm else rng.uniform(4.5, 5.0)
        foot = np.array([side * (street.kerb + 0.35), 0.0, rng.uniform(-6.0, 34.0)])
        position = foot + vec(arm, low, 0.0)
        ends = np.array([position, position + vec(0, traffic_lights.HEAD_HEIGHT, 0)])
        points = camera.to_camera(ends)
        if not (6.5 < points[0, 2] < 20 and abs(position[0] - camera.position[0]) > 1.5):
            continue
        pixels = view.pixels(points)
        visible = 0.06 < pixels[0, 0] < 0.94 and pixels[1, 1] > 0.05 and pixels[0, 1] < 0.9
        if not visible or any(abs(pixels[0, 0] - column) < 0.12 for column in columns):
            continue
        columns.append(float(pixels[0, 0]))
        lights.append(_mount(rng, camera, foot, position, offset))
        if len(lights) == count:
            break
    return lights


def _mount(
    rng: np.random.Generator, camera: Camera, foot: Array, position: Array, offset: float
) -> tuple[Array, Array, float, PlacedSolid]:
    towards = camera.position - position
    angle = math.atan2(towards[0], towards[2]) + rng.uniform(-0.45, 0.45)
    rotation = np.array(
        [[math.cos(angle), 0, math.sin(angle)], [0, 1, 0], [-math.sin(angle), 0, math.cos(angle)]]
    )
    arm = float(position[0] - foot[0])
    height = float(position[1]) + (0.3 if not arm else traffic_lights.HEAD_HEIGHT * 0.7)
    away = -1.0 if camera.position[2] < foot[2] else 1.0
    pole = traffic_lights.pole(height, arm * away).place(foot, np.diag([away, 1.0, away]))
    return position, rotation, offset, pole
