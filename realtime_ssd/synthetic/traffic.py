"""Who is on the street at a moment: endless flows of vehicles, cyclists and people."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from realtime_ssd.synthetic import signals, vehicles
from realtime_ssd.synthetic.camera import Array
from realtime_ssd.synthetic.figures import Figure, Person, Rider
from realtime_ssd.synthetic.shapes import Placed, Solid
from realtime_ssd.synthetic.street_plan import Street

__all__ = ["Actor", "Traffic"]

TUNNEL = 9.0
"""Metres that things still travel under the bridge before they are gone."""
_AHEAD = np.eye(3)
_BACK = np.diag([-1.0, 1.0, -1.0])
_VEHICLES: dict[str, Callable[[np.random.Generator], Solid]] = {
    "car": vehicles.car,
    "bus": vehicles.bus,
    "truck": vehicles.truck,
}


@dataclass(frozen=True, slots=True, eq=False)
class Actor:
    """One thing on the street at one moment.

    Attributes:
        label: Its label, or "" for a thing that only hides others.
        track_id: The same number for the same thing in every frame.
        thing: Its shape in the world.
        footprint: Smallest x, z and largest x, z on the ground in metres.
        height: In metres.
        heading: +1 away along z, -1 back, 0 where it has none.
        hidden: Share by which the darkness under the bridge has swallowed it, 0 to 1.
    """

    label: str
    track_id: int
    thing: Placed | Figure
    footprint: tuple[float, float, float, float]
    height: float
    heading: int = 0
    hidden: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Flow:
    """Things that follow each other along one line at one speed, for ever.

    Attributes:
        kinds: What may come, with its probability (they sum to at most 1, the rest is a gap).
        x: Distance of the line from the middle of the road in metres.
        heading: +1 away along z, -1 back.
        speed: Metres per second.
        gap: Metres between the slots.
        jitter: How far a thing may be off its slot along the line, in metres.
        aside: How far a thing may be off the line, in metres.
        span: Smallest and largest z.
        phase: Metres travelled at time 0.
        wave: Amplitude in metres of the slow speeding up and down.
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

    def travelled(self, time: float) -> float:
        """Metres since the flow began; never falls."""
        pulse = 2 * math.pi * 0.06
        return self.phase + self.speed * time + self.wave * math.sin(pulse * time + self.phase)

    def slots(self, time: float) -> Iterator[tuple[int, int, float]]:
        """Slot, lap and metres along the line of every slot at a time."""
        count = int((self.span[1] - self.span[0]) / self.gap)
        length, gone = count * self.gap, self.travelled(time)
        for slot in range(count):
            shift = self.jitter * math.sin(12.9898 * (slot + 1) + self.phase)
            lap, along = divmod(gone + slot * self.gap + shift, length)
            yield slot, int(lap), along


@dataclass(slots=True)
class Traffic:
    """The flows and traffic lights of one scene.

    Attributes:
        seed: Seed of the scene.
        end: z of the bridge.
        flows: The flows.
        lights: Position, turn and offset in seconds of each traffic light, and its pole.
    """

    seed: int
    end: float
    flows: list[Flow]
    lights: list[tuple[Array, Array, float, Placed]]
    known: dict[tuple[int, int, int], tuple[str, Solid | Person | Rider | None, float]] = field(
        default_factory=dict
    )

    def actors(self, time: float, near: Callable[[float, float, float], bool]) -> list[Actor]:
        """What is on the street at a time in seconds.

        Args:
            time: Seconds of the scene.
            near: Tells whether something at x, z with a radius in metres may be in the picture.
        """
        found: list[Actor] = []
        for number, flow in enumerate(self.flows):
            for slot, lap, along in flow.slots(time):
                z = flow.span[0] + along if flow.heading > 0 else flow.span[1] - along
                if not near(flow.x, z, 6.5 if flow.gap > 15 else 1.2):
                    continue
                label, look, aside = self._look(number, flow, slot, lap)
                if look is not None:
                    position = np.array([flow.x + aside, 0.0, z])
                    track = 1000 + (lap * 100 + slot) * 16 + number
                    travelled = lap * 7.0 + flow.travelled(time)
                    actor = _actor(label, track, look, position, flow.heading, travelled)
                    hidden = min(1.0, max(0.0, (z - self.end) / (TUNNEL - 2.0)))
                    found.append(replace(actor, hidden=hidden) if hidden else actor)
        for number, light in enumerate(self.lights):
            found.extend(_light(number, light, time))
        return found

    def _look(
        self, number: int, flow: Flow, slot: int, lap: int
    ) -> tuple[str, Solid | Person | Rider | None, float]:
        key = (number, slot, lap % (1 << 32))
        if key not in self.known:
            if len(self.known) > 512:
                self.known.clear()
            self.known[key] = self._draw(key, flow)
        return self.known[key]

    def _draw(
        self, key: tuple[int, int, int], flow: Flow
    ) -> tuple[str, Solid | Person | Rider | None, float]:
        rng = np.random.default_rng([self.seed, *key])
        chance, aside = rng.random(), rng.uniform(-flow.aside, flow.aside)
        for label, share in flow.kinds.items():
            chance -= share
            if chance < 0:
                if label == "person":
                    return label, Person.draw(rng), aside
                if label == "cyclist":
                    return label, Rider.draw(rng), aside
                return label, _VEHICLES[label](rng), aside
        return "", None, 0.0

    @classmethod
    def draw(
        cls,
        seed: int,
        rng: np.random.Generator,
        street: Street,
        lights: list[tuple[Array, Array, float, Placed]],
    ) -> Traffic:
        """Draw the flows of a street."""
        flows: list[Flow] = []
        last = street.end + TUNNEL
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
    look: Solid | Person | Rider,
    position: Array,
    heading: int,
    travelled: float,
) -> Actor:
    turn = _AHEAD if heading > 0 else _BACK
    x, _, z = position
    if isinstance(look, Solid):
        half, high, long = look.bounds[3], look.bounds[4], look.bounds[5]
        box = (x - half, z - long, x + half, z + long)
        return Actor(label, track, look.placed(position, turn), box, high, heading)
    if isinstance(look, Person):
        figure = look.posed(position, turn, travelled * 2 * math.pi / 1.45)
        return Actor(
            label, track, figure, (x - 0.3, z - 0.3, x + 0.3, z + 0.3), look.height, heading
        )
    figure = look.posed(position, turn, -travelled * 2 * math.pi / 4.2)
    return Actor(label, track, figure, (x - 0.3, z - 0.9, x + 0.3, z + 0.9), 1.8, heading)


_HEADS = tuple(signals.head(state) for state in range(3))


def _light(number: int, light: tuple[Array, Array, float, Placed], time: float) -> Iterator[Actor]:
    position, turn, offset, pole = light
    low, high = pole.vertices.min(axis=0), pole.vertices.max(axis=0)
    box = (float(low[0]), float(low[2]), float(high[0]), float(high[2]))
    yield Actor("", 0, pole, box, float(pole.solid.bounds[4]))
    solid = _HEADS[signals.state_at(time, offset)]
    x, z = float(position[0]), float(position[2])
    placed = solid.placed(position, turn)
    around = (x - 0.3, z - 0.01, x + 0.3, z + 0.01)
    yield Actor("traffic light", 1 + number, placed, around, 0.0)
