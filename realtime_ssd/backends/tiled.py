"""`TiledBackend`: runs another backend on overlapping tiles of large frames."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from realtime_ssd.backends.base import Backend, PendingBatch
from realtime_ssd.backends.region import crop_frame
from realtime_ssd.core.closeable import Closeable
from realtime_ssd.core.detections import Detections
from realtime_ssd.core.frames import Frame
from realtime_ssd.core.tiles import Tile, TileOptions, merge_tiles, plan_tiles

__all__ = ["TiledBackend"]


@dataclass(slots=True, eq=False)
class _Job:
    """The passes of one frame.

    Attributes:
        tiles: The tiles of the frame, the whole frame first.
        waiting: Groups of tiles that were not submitted yet.
        running: Batches of the inner backend, in order.
    """

    tiles: tuple[Tile, ...]
    waiting: deque[list[Frame]]
    running: deque[PendingBatch] = field(default_factory=deque)


class TiledBackend(Closeable):
    """Cuts frames into tiles in `submit` and merges their detections in `collect`.

    The tiles of a frame pass through the inner backend in batches, together with the whole frame;
    `realtime_ssd.core.tiles` describes how they are laid out and merged. Each tile counts as an
    image of its own for `pre_nms_top_k` and `max_detections`. Frames that are hardly larger than a
    tile take a single pass.

    Args:
        backend: What to run; closed with this object.
        options: Size and overlap of the tiles.

    Raises:
        UsageError: If the options are invalid.
    """

    max_batch = max_submit = max_in_flight = 1

    def __init__(self, backend: Backend, options: TileOptions | None = None) -> None:
        self._backend, self._options = backend, options or TileOptions()
        self.name, self.spec = backend.name, backend.spec
        self.converts_frames = backend.converts_frames

    def submit(self, frames: Sequence[Frame]) -> PendingBatch:
        """Start inference on the tiles of a frame; see `Backend.submit`."""
        (frame,) = frames
        tiles = plan_tiles(self._options, self.spec.input, frame.width, frame.height)
        parts = [frame, *(crop_frame(frame, tile.region) for tile in tiles[1:])]
        # Enough groups for all workers of the inner backend, as large as they may be.
        share = -(-len(parts) // self._backend.max_in_flight)
        size = min(self._backend.max_submit, max(share, self._backend.max_batch))
        groups = (parts[start : start + size] for start in range(0, len(parts), size))
        batch = PendingBatch((frame,), _Job(tiles, deque(groups)))
        self._start_waiting(batch.payload)
        return batch

    def collect(self, batch: PendingBatch) -> list[Detections]:
        """Wait for all tiles of a frame and merge them; see `Backend.collect`.

        Raises:
            Exception: The error of the first tile that failed, after the tiles that were already
                submitted have ended.
        """
        job: _Job = batch.payload
        detected: list[Detections] = []
        error: Exception | None = None
        while job.running:
            part = job.running.popleft()
            try:
                detected += self._backend.collect(part)
                error = error or part.error
            except Exception as caught:
                error = error or caught
            for stage, seconds in part.timings.items():
                batch.timings[stage] = batch.timings.get(stage, 0.0) + seconds * part.passes
            if error is None:
                self._start_waiting(job)
        if error is not None:
            raise error
        if len(job.tiles) == 1:
            return detected
        return [merge_tiles(job.tiles, detected, self.spec.thresholds)]

    def close(self) -> None:
        """Close the inner backend."""
        self._backend.close()

    def _start_waiting(self, job: _Job) -> None:
        while job.waiting and len(job.running) < self._backend.max_in_flight:
            job.running.append(self._backend.submit(job.waiting.popleft()))
