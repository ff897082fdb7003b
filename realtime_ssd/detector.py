"""`Detector`: a model ready to use from Python."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from realtime_ssd.backends import Backend, BackendOptions, open_backend
from realtime_ssd.core.closeable import Closeable
from realtime_ssd.core.detections import Detections
from realtime_ssd.core.errors import UsageError
from realtime_ssd.core.frames import Frame
from realtime_ssd.core.spec import ModelSpec
from realtime_ssd.pipeline import Pipeline, PipelineOptions
from realtime_ssd.sources import Source, open_source
from realtime_ssd.zoo import find_model

__all__ = ["Detector"]


class Detector(Closeable):
    """Finds objects in images and videos.

    Args:
        model: ONNX file, or name of a model; None for a pulled general model, else the bundled one.
        backend: "auto", "onnxruntime" or "tensorrt".
        score_threshold: Detections must score above this; None leaves the model's own value.
        iou_threshold: Boxes of a class that overlap a better one by more than this IoU are dropped.
        pre_nms_top_k: Best candidates of a class that enter NMS.
        classes: Names of the classes to look for; empty for all.
        batch: Largest number of frames that go through the network together.

    Raises:
        UsageError: If model, backend or a class is unknown.
        ModelError: If the model cannot be read or run.

    Example:
        >>> from realtime_ssd import Detector, open_source
        >>> with Detector("street") as detector:
        ...     for frame, detections in detector.stream("demo:frames=3"):
        ...         print(frame.index, type(detections).__name__)
        0 Detections
        1 Detections
        2 Detections
    """

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        backend: str = "auto",
        score_threshold: float | None = None,
        iou_threshold: float | None = None,
        pre_nms_top_k: int | None = None,
        classes: Sequence[str] = (),
        batch: int = 1,
    ) -> None:
        path, _ = find_model(None if model is None else str(model))
        options = BackendOptions(
            batch=batch,
            score_threshold=score_threshold,
            iou_threshold=iou_threshold,
            pre_nms_top_k=pre_nms_top_k,
            classes=tuple(classes),
        )
        self._backend: Backend = open_backend(path, backend, options)
        self._lock = threading.Lock()
        self._streaming = False

    @property
    def spec(self) -> ModelSpec:
        """The model's contract with the thresholds in force."""
        return self._backend.spec

    @property
    def backend(self) -> str:
        """Name of the backend that runs the model."""
        return self._backend.name

    def __call__(self, image: NDArray[np.uint8]) -> Detections:
        """Find the objects in one image.

        Args:
            image: H × W × 3, uint8, BGR, as OpenCV reads it; it is not changed.

        Returns:
            Detections in pixels of the image, best first.

        Raises:
            ValueError: If the image has another shape or type.
            UsageError: If a stream of this detector is still running.

        Example:
            >>> import numpy as np
            >>> with Detector("street") as detector:
            ...     detections = detector(np.zeros((120, 160, 3), np.uint8))
            >>> type(detections).__name__
            'Detections'
        """
        frame = Frame(np.asarray(image).view())
        self._check_free()
        with self._lock:
            return self._backend.collect(self._backend.submit([frame]))[0]

    def stream(
        self, source: str | int | Path | Source, max_frames: int | None = None
    ) -> Iterator[tuple[Frame, Detections]]:
        """Find the objects in every frame of a source, in threads of their own.

        Args:
            source: What `open_source` takes, or an open source.
            max_frames: Frames to process; None for all.

        Yields:
            Each frame with its detections, in order; of a live source the newest frames.

        Raises:
            UsageError: If there is no such source, or another stream of this detector is running.
            SourceError: If it cannot be read, or is damaged (after the frames that could be read).
        """
        self._check_free()
        opened = open_source(source) if isinstance(source, str | int | Path) else source
        with self._lock:
            self._streaming = True
            try:
                loop = Pipeline([opened], self._backend, PipelineOptions(max_frames=max_frames))
                for result in loop:
                    yield result.frame, result.detections
            finally:
                self._streaming = False

    def _check_free(self) -> None:
        """Refuse what would wait for the end of a stream, perhaps for ever."""
        if self._streaming:
            raise UsageError(
                "this detector is busy with a stream; make a second Detector for other pictures"
            )

    def close(self) -> None:
        """Give the model back; may be called any number of times."""
        self._backend.close()
