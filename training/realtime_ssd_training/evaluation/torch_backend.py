"""A network in PyTorch behind the interface of every other backend, so that all score alike."""

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
from realtime_ssd_training.engine.checkpoint import load_model
from realtime_ssd_training.models import SSD

__all__ = ["TorchBackend", "open_checkpoint"]


def open_checkpoint(path: Path, score: float, batch: int) -> TorchBackend:
    """Load a checkpoint onto the GPU where PyTorch sees one, else onto the CPU.

    Args:
        path: File that `realtime-ssd train` wrote.
        score: Detections must score above this.
        batch: Largest number of frames that go through the network together.

    Raises:
        ModelError: If the file is no checkpoint.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return TorchBackend(load_model(path).to(device), score, batch)


class TorchBackend(Closeable):
    """Runs a network on the device it is on.

    Pre- and post-processing are the reference ones on the CPU, as for an exported model.

    Args:
        model: The network; left in the mode (training or evaluation) it was in.
        score: Detections must score above this; the model's own threshold if None.
        batch: Largest number of frames in one `submit`.
    """

    name = "torch"
    max_in_flight = 1
    converts_frames = False

    def __init__(self, model: SSD, score: float | None = None, batch: int = 8) -> None:
        self.spec = model.spec.with_thresholds(score_threshold=score)
        self.max_batch = self.max_submit = batch
        self._model = model
        self._post = PostProcessor(self.spec)

    def submit(self, frames: Sequence[Frame]) -> PendingBatch:
        """Run 1 to `max_batch` frames, of any sizes."""
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
        answers = [
            to_frame_detections(self._post(*pair), self.spec, frame.width, frame.height)
            for frame, pair in zip(frames, heads, strict=True)
        ]
        return PendingBatch(tuple(frames), answers)

    def collect(self, ticket: PendingBatch) -> list[Detections]:
        """Give the detections of a ticket's frames, in order, in frame pixels."""
        answers: list[Detections] = ticket.payload
        return answers

    def close(self) -> None:
        """Leave the network to its owner."""
