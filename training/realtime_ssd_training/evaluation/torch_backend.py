"""PyTorch backend, so that a checkpoint is evaluated like every other model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from realtime_ssd.backends import PendingBatch
from realtime_ssd.core.closeable import Closeable
from realtime_ssd.core.detections import Detections
from realtime_ssd.core.frames import Frame
from realtime_ssd.core.postprocess import PostProcessor, to_frame_detections
from realtime_ssd.core.preprocess import preprocess
from realtime_ssd_training.models import SSD
from realtime_ssd_training.models.checkpoint import load_model

__all__ = ["TorchBackend", "open_checkpoint"]


def open_checkpoint(path: Path, score_threshold: float, batch: int) -> TorchBackend:
    """Load a checkpoint onto the GPU if PyTorch can use one, else onto the CPU.

    Args:
        path: File written by `realtime-ssd train`.
        score_threshold: Minimum score of a detection, exclusive.
        batch: Maximum batch size.

    Raises:
        ModelError: If the file is not a checkpoint.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return TorchBackend(load_model(path).to(device), score_threshold, batch)


class TorchBackend(Closeable):
    """A `realtime_ssd.backends.Backend` that runs a network on its current device.

    Pre- and post-processing are the reference implementations on the CPU.

    Args:
        model: The network. Its training or evaluation mode is preserved.
        score_threshold: Minimum score of a detection, exclusive; the model's default if None.
        batch: Maximum number of frames per `submit`.
    """

    name = "torch"
    max_in_flight = 1
    converts_frames = False

    def __init__(self, model: SSD, score_threshold: float | None = None, batch: int = 8) -> None:
        self.spec = model.spec.with_thresholds(score_threshold=score_threshold)
        self.max_batch = self.max_submit = batch
        self._model = model
        self._post = PostProcessor(self.spec)

    def submit(self, frames: Sequence[Frame]) -> PendingBatch:
        """Run 1 to `max_batch` frames of any sizes."""
        tensor = np.stack([preprocess(frame.image, self.spec.input) for frame in frames])
        device = self._model.default_boxes.device
        was_training = self._model.training
        self._model.eval()
        try:
            with torch.inference_mode():
                scores, offsets = self._model(torch.from_numpy(tensor).to(device))
        finally:
            self._model.train(was_training)
        heads = zip(scores.float().cpu().numpy(), offsets.float().cpu().numpy(), strict=True)
        detections = [
            to_frame_detections(self._post(*pair), self.spec, frame.width, frame.height)
            for frame, pair in zip(frames, heads, strict=True)
        ]
        return PendingBatch(tuple(frames), detections)

    def collect(self, batch: PendingBatch) -> list[Detections]:
        """Return the detections of each frame of a batch, in frame pixels."""
        detections: list[Detections] = batch.payload
        return detections

    def close(self) -> None:
        """Do nothing: the network belongs to the caller."""
