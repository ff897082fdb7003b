"""The plan of the street and where its camera and traffic lights stand."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from realtime_ssd.synthetic import signals
from realtime_ssd.synthetic.camera import Array, Camera, View, vec
from realtime_ssd.synthetic.shapes import Placed

__all__ = ["Street", "camera_pose", "traffic_lights"]

LANE = 3.3


@dataclass(frozen=True, slots=True)
class Street:
    """Cross-section of the street; distances in metres from the middle of the road.

    Attributes:
        lanes: Lanes in each direction.
        pavement: Width of the pavement.
        open_side: -1 or +1 where the camera stands on an open square, else 0.
        end: z of the bridge that closes the street.
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
        return self.lanes * LANE

    @property
    def bikes(self) -> float:
        """Middle of the cycle lane."""
        return self.road + 0.95

    @property
    def kerb(self) -> float:
        """Kerb of the pavement."""
        return self.road + 1.9

    @property
    def trees(self) -> float:
        """Line of trees and lamps, behind the people."""
        return self.kerb + self.pavement - 0.7

    @property
    def wall(self) -> float:
        """Fronts of the houses."""
        return self.kerb + self.pavement + 0.4

    def lane_x(self, side: int, lane: int) -> float:
        """Middle of a lane; traffic keeps to the right."""
        return side * LANE * (lane + 0.5)

    def walk_x(self, lane: int) -> float:
        """Line that people walk along: lane 0 near the kerb, lane 1 near the houses."""
        return self.kerb + (1.0, 2.3)[lane]

    @classmethod
    def draw(cls, rng: np.random.Generator, pose: str) -> Street:
        """Draw a street for a camera pose."""
        lanes = 1 if pose == "square" or rng.random() < 0.5 else 2
        side = int(rng.choice([-1, 1])) if pose == "square" else 0
        zebra = rng.uniform(-3.0, 10.0) if pose == "square" else rng.uniform(12.0, 24.0)
        return cls(lanes, rng.uniform(4.0, 5.2), side, rng.uniform(56.0, 70.0), zebra)


def camera_pose(rng: np.random.Generator, street: Street, pose: str) -> Camera:
    """Place the camera: on a gantry, on a mast at the corner, or across a square."""
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
    return Camera.look(np.array([x, high, 0.0]), yaw, pitch, focal)


def traffic_lights(
    rng: np.random.Generator, street: Street, camera: Camera
) -> list[tuple[Array, Array, float, Placed]]:
    """Put one to three traffic lights where the camera sees them well."""
    base = np.array([[camera.focal * 0.75, 0, 0.5], [0, camera.focal, 0.5]])
    view = View(camera, base)
    wanted = int(rng.integers(1, 4))
    found: list[tuple[Array, Array, float, Placed]] = []
    taken: list[float] = []
    offset = rng.uniform(0, 14)
    for _ in range(160):
        side = int(rng.choice([-1, 1]))
        arm = 0.0 if rng.random() < 0.6 else -side * rng.uniform(1.6, 3.4)
        low = rng.uniform(2.3, 2.9) if not arm else rng.uniform(4.5, 5.0)
        foot = np.array([side * (street.kerb + 0.35), 0.0, rng.uniform(-6.0, 34.0)])
        place = foot + vec(arm, low, 0.0)
        ends = np.array([place, place + vec(0, signals.HEAD_HIGH, 0)])
        seen = camera.see(ends)
        if not (6.5 < seen[0, 2] < 20 and abs(place[0] - camera.position[0]) > 1.5):
            continue
        spot = view.pixels(seen)
        shown = 0.06 < spot[0, 0] < 0.94 and spot[1, 1] > 0.05 and spot[0, 1] < 0.9
        if not shown or any(abs(spot[0, 0] - u) < 0.12 for u in taken):
            continue
        taken.append(float(spot[0, 0]))
        found.append(_mount(rng, camera, foot, place, offset))
        if len(found) == wanted:
            break
    return found


def _mount(
    rng: np.random.Generator, camera: Camera, foot: Array, place: Array, offset: float
) -> tuple[Array, Array, float, Placed]:
    towards = camera.position - place
    angle = math.atan2(towards[0], towards[2]) + rng.uniform(-0.45, 0.45)
    turn = np.array(
        [[math.cos(angle), 0, math.sin(angle)], [0, 1, 0], [-math.sin(angle), 0, math.cos(angle)]]
    )
    arm = float(place[0] - foot[0])
    high = float(place[1]) + (0.3 if not arm else signals.HEAD_HIGH * 0.7)
    away = -1.0 if camera.position[2] < foot[2] else 1.0
    pole = signals.pole(high, arm * away).placed(foot, np.diag([away, 1.0, away]))
    return place, turn, offset, pole
