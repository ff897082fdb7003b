"""Traffic: endless flows of vehicles, cyclists and pedestrians."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from realtime_ssd.synthetic import traffic_lights, vehicles
from realtime_ssd.synthetic.people import Figure, Person, Rider
from realtime_ssd.synthetic.projection import Array
from realtime_ssd.synthetic.shapes import PlacedSolid, Solid
from realtime_ssd.synthetic.street_plan import Street

__all__ = ["Actor", "Traffic"]

UNDERPASS_LENGTH = 9.0
"""Distance in meters that actors travel under the bridge before they disappear."""
_FORWARD = np.eye(3)
_BACKWARD = np.diag([-1.0, 1.0, -1.0])
_VEHICLES: dict[str, Callable[[np.random.Generator], Solid]] = {
    "car": vehicles.car,
    "bus": vehicles.bus,
    "truck": vehicles.truck,
}


@dataclass(frozen=True, slots=True, eq=False)
class Actor:
    """A road user or an obstacle at one point in time.

    Attributes:
        label: Label; empty for an obstacle that only hides others.
        track_id: Identifies the actor in all frames.
        shape: Geometry in the world.
        footprint: Minimum x, z and maximum x, z on the ground in meters.
        height: Height in meters.
        heading: +1 along z, -1 against z, 0 if static.
        hidden: Fraction hidden by the darkness of the underpass, 0 to 1.
    """

    label: str
    track_id: int
    shape: PlacedSolid | Figure
    footprint: tuple[float, float, float, float]
    height: float
    heading: int = 0
    hidden: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Flow:
    """An endless sequence of actors on one line at one speed.

    Attributes:
        kinds: Probability of each label; the remainder to 1 is that of an empty slot.
        x: Distance of the line from the center of the road in meters.
        heading: +1 along z, -1 against z.
        speed: Mean speed in meters per second.
        gap: Distance between slots in meters.
        jitter: Maximum offset from the slot along the line in meters.
        aside: Maximum lateral offset from the line in meters.
        span: Minimum and maximum z.
        phase: Distance traveled at time 0 in meters.
        wave: Amplitude of the variation of the distance in meters.
    """

    kinds: dict[str, float]
    x: float
    heading: int
    speed: float
    gap: float
    jitter: float
    aside: float
    span: tuple[float, float]
    phase: float
    wave: float

    def traveled(self, time: float) -> float:
        """Return the distance traveled at a time in meters; never decreases."""
        rate = 2 * math.pi * 0.06
        return self.phase + self.speed * time + self.wave * math.sin(rate * time + self.phase)

    def slots(self, time: float) -> Iterator[tuple[int, int, float]]:
        """Yield slot, lap and position along the line in meters for every slot."""
        count = int((self.span[1] - self.span[0]) / self.gap)
        length, traveled = count * self.gap, self.traveled(time)
        for slot in range(count):
            shift = self.jitter * math.sin(12.9898 * (slot + 1) + self.phase)
            lap, along = divmod(traveled + slot * self.gap + shift, length)
            yield slot, int(lap), along


@dataclass(slots=True)
class Traffic:
    """The flows and traffic lights of one scene.

    Attributes:
        seed: Seed of the scene.
        end: z of the bridge.
        flows: The flows.
        lights: Position, rotation, offset of the cycle in seconds, and pole of each traffic light.
    """

    seed: int
    end: float
    flows: list[Flow]
    lights: list[tuple[Array, Array, float, PlacedSolid]]
    appearances: dict[tuple[int, int, int], tuple[str, Solid | Person | Rider | None, float]] = (
        field(default_factory=dict)
    )

    def actors(self, time: float, in_view: Callable[[float, float, float], bool]) -> list[Actor]:
        """Return the actors at a point in time.

        Args:
            time: Scene time in seconds.
            in_view: Returns whether a disc at x, z with a radius in meters may be in the frame.
        """
        actors: list[Actor] = []
        for number, flow in enumerate(self.flows):
            for slot, lap, along in flow.slots(time):
                z = flow.span[0] + along if flow.heading > 0 else flow.span[1] - along
                if not in_view(flow.x, z, 6.5 if flow.gap > 15 else 1.2):
                    continue
                label, body, aside = self._appearance(number, flow, slot, lap)
                if body is not None:
                    position = np.array([flow.x + aside, 0.0, z])
                    track = 1000 + (lap * 100 + slot) * 16 + number
                    traveled = lap * 7.0 + flow.traveled(time)
                    actor = _actor(label, track, body, position, flow.heading, traveled)
                    hidden = min(1.0, max(0.0, (z - self.end) / (UNDERPASS_LENGTH - 2.0)))
                    actors.append(replace(actor, hidden=hidden) if hidden else actor)
        for number, light in enumerate(self.lights):
            actors.extend(_traffic_light(number, light, time))
        return actors

    def _appearance(
        self, number: int, flow: Flow, slot: int, lap: int
    ) -> tuple[str, Solid | Person | Rider | None, float]:
        key = (number, slot, lap % (1 << 32))
        if key not in self.appearances:
            if len(self.appearances) > 512:
                self.appearances.clear()
            self.appearances[key] = self._sample(key, flow)
        return self.appearances[key]

    def _sample(
        self, key: tuple[int, int, int], flow: Flow
    ) -> tuple[str, Solid | Person | Rider | None, float]:
        rng = np.random.default_rng([self.seed, *key])
        chance, aside = rng.random(), rng.uniform(-flow.aside, flow.aside)
        for label, share in flow.kinds.items():
            chance -= share
            if chance < 0:
                if label == "person":
                    return label, Person.sample(rng), aside
                if label == "cyclist":
                    return label, Rider.sample(rng), aside
                return label, _VEHICLES[label](rng), aside
        return "", None, 0.0

    @classmethod
    def sample(
        cls,
        seed: int,
        rng: np.random.Generator,
        street: Street,
        lights: list[tuple[Array, Array, float, PlacedSolid]],
    ) -> Traffic:
        """Sample the flows of a street."""
        flows: list[Flow] = []
        last = street.end + UNDERPASS_LENGTH
        span = (-32.0, last)
        for side in (1, -1):
            for lane in range(street.lanes):
                flows.append(_vehicle_flow(rng, side, street.lane_x(side, lane), span))
            flows.append(
                Flow({"cyclist": rng.uniform(0.35, 0.6)}, side * street.bikes, side,
                     rng.uniform(3.6, 5.6), 10.0, 2.5, 0.25, (-24.0, last),
                     rng.uniform(0, 100), 1.5)
            )  # fmt: skip
            for lane, heading in enumerate((side, -side)):
                flows.append(
                    Flow({"person": rng.uniform(0.2, 0.36)}, side * street.walk_x(lane), heading,
                         rng.uniform(0.95, 1.6), 6.0, 2.0, 0.3, (-18.0, last),
                         rng.uniform(0, 100), 0.0)
                )  # fmt: skip
        return cls(seed, street.end, flows, lights)


def _vehicle_flow(rng: np.random.Generator, side: int, x: float, span: tuple[float, float]) -> Flow:
    kinds = {"car": 0.32, "bus": rng.uniform(0.2, 0.27), "truck": rng.uniform(0.18, 0.26)}
    speed = rng.uniform(5.5, 10.0)
    return Flow(kinds, x, side, speed, 18.0, 2.4, 0.15, span, rng.uniform(0, 200), 5.0)


def _actor(
    label: str,
    track: int,
    body: Solid | Person | Rider,
    position: Array,
    heading: int,
    traveled: float,
) -> Actor:
    rotation = _FORWARD if heading > 0 else _BACKWARD
    x, _, z = position
    if isinstance(body, Solid):
        half_width, height, half_length = body.bounds[3], body.bounds[4], body.bounds[5]
        box = (x - half_width, z - half_length, x + half_width, z + half_length)
        return Actor(label, track, body.place(position, rotation), box, height, heading)
    if isinstance(body, Person):
        figure = body.pose(position, rotation, traveled * 2 * math.pi / 1.45)
        return Actor(
            label, track, figure, (x - 0.3, z - 0.3, x + 0.3, z + 0.3), body.height, heading
        )
    figure = body.pose(position, rotation, -traveled * 2 * math.pi / 4.2)
    return Actor(label, track, figure, (x - 0.3, z - 0.9, x + 0.3, z + 0.9), 1.8, heading)


_HEADS = tuple(traffic_lights.head(state) for state in range(3))


def _traffic_light(
    number: int, light: tuple[Array, Array, float, PlacedSolid], time: float
) -> Iterator[Actor]:
    position, rotation, offset, pole = light
    low, high = pole.vertices.min(axis=0), pole.vertices.max(axis=0)
    box = (float(low[0]), float(low[2]), float(high[0]), float(high[2]))
    yield Actor("", 0, pole, box, float(pole.solid.bounds[4]))
    solid = _HEADS[traffic_lights.state_at(time, offset)]
    x, z = float(position[0]), float(position[2])
    placed = solid.place(position, rotation)
    footprint = (x - 0.3, z - 0.01, x + 0.3, z + 0.01)
    yield Actor("traffic light", 1 + number, placed, footprint, 0.0)
