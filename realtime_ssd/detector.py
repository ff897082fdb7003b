"""`Detector`: object detection in images and videos from Python."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray

from realtime_ssd.backends import Backend, BackendOptions, PendingBatch, open_backend
from realtime_ssd.core.closeable import Closeable
from realtime_ssd.core.detections import Detections
from realtime_ssd.core.errors import UsageError
from realtime_ssd.core.frames import Frame
from realtime_ssd.core.image_conversion import to_bgr
from realtime_ssd.core.spec import ModelSpec
from realtime_ssd.core.tiles import parse_tile
from realtime_ssd.pipeline import Pipeline, PipelineOptions
from realtime_ssd.processors import Processor
from realtime_ssd.sources import Source, open_source
from realtime_ssd.zoo import find_model

if TYPE_CHECKING:
    from PIL.Image import Image as PilImage

__all__ = ["Detector"]

ImageInput: TypeAlias = "NDArray[np.uint8] | PilImage | Frame | str | Path"


class Detector(Closeable):
    """Detects objects in images and videos.

    A detector may be used from several threads; their calls run one after the other.

    Args:
        model: ONNX file, or name of a model; None for a pulled general model, else the bundled one.
        backend: "auto", "onnxruntime" or "tensorrt".
        score_threshold: Detections score higher than this; None for the default of the model. Or
            a mapping with such values by class, as in {"person": 0.6}; its key "*" stands for all
            other classes, which otherwise have the default of the model.
        iou_threshold: A box is suppressed if its IoU with a better box of its class is higher.
        pre_nms_top_k: Best candidates of each class that enter NMS.
        agnostic_nms: Whether better boxes of other classes suppress a box too.
        classes: Name or names of the classes to detect; empty for all.
        batch: Largest number of frames in one pass of the network.
        trust_model: Whether to run a graph with operators or sizes that SSDs do not need; such a
            model may need any amount of memory and time.
        device: Number of the GPU, from 0; the first one by default. ONNX Runtime uses none.
        tile: Also run the model on tiles of larger images, for small objects: "WIDTHxHEIGHT" in
            pixels, or "auto" for twice the input of the model.
        overlap: Smallest overlap of neighboring tiles, as a fraction of their side.

    Raises:
        UsageError: If the model, the backend or a class is unknown, or a value is out of range.
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
        score_threshold: float | Mapping[str, float] | None = None,
        iou_threshold: float | None = None,
        pre_nms_top_k: int | None = None,
        agnostic_nms: bool = False,
        classes: str | Sequence[str] = (),
        batch: int = 1,
        trust_model: bool = False,
        device: int | None = None,
        tile: str | None = None,
        overlap: float = 0.2,
    ) -> None:
        path, _ = find_model(None if model is None else str(model))
        options = BackendOptions(
            batch=batch,
            score_threshold=score_threshold,
            iou_threshold=iou_threshold,
            pre_nms_top_k=pre_nms_top_k,
            agnostic_nms=agnostic_nms,
            classes=(classes,) if isinstance(classes, str) else tuple(classes),
            trust_model=trust_model,
            device=device,
            tile=parse_tile(tile, overlap),
        )
        self._backend: Backend = open_backend(path, backend, options)
        self._lock = threading.Lock()  # held by a call, and whenever the flags are set
        self._streaming = self._closed = False
        self._process = os.getpid()

    @property
    def spec(self) -> ModelSpec:
        """Specification of the model, with the thresholds in use."""
        return self._backend.spec

    @property
    def backend(self) -> str:
        """Name of the backend that runs the model."""
        return self._backend.name

    @overload
    def __call__(self, image: ImageInput) -> Detections: ...  # type: ignore[overload-overlap]

    @overload
    def __call__(self, image: Sequence[ImageInput]) -> list[Detections]: ...

    def __call__(self, image: ImageInput | Sequence[ImageInput]) -> Detections | list[Detections]:
        """Detect the objects in one image, or in each image of a list.

        Args:
            image: Array, uint8 (H × W × 3 BGR, as OpenCV reads it; H × W gray; H × W × 4 BGRA),
                PIL image, frame or image file; or a list of these, which runs in batches. Images
                are not changed.

        Returns:
            Detections in pixels of the image, best first; a list of them for a list.

        Raises:
            UsageError: If an image has another type or shape or does not exist, the detector is
                closed, or one of its streams is running.
            SourceError: If an image file cannot be read.

        Example:
            >>> import numpy as np
            >>> with Detector("street", score_threshold=0.9) as detector:
            ...     detections = detector(np.zeros((120, 160, 3), np.uint8))
            >>> detections
            Detections(0)
        """
        self._check_process()
        with self._lock:
            self._check_idle()
            if isinstance(image, Sequence) and not isinstance(image, str):
                return self._detect(_to_frame(item) for item in image)
            return self._detect([_to_frame(image)])[0]

    def _detect(self, images: Iterable[Frame]) -> list[Detections]:
        """Run the model in batches, several of them in parallel where the backend can."""
        results: list[Detections] = []
        pending: deque[PendingBatch] = deque()
        frames = iter(images)
        try:
            while batch := list(islice(frames, self._backend.max_batch)):
                if len(pending) == self._backend.max_in_flight:
                    results += self._backend.collect(pending.popleft())
                pending.append(self._backend.submit(batch))
            while pending:
                results += self._backend.collect(pending.popleft())
        finally:
            for unfinished in pending:  # after an error: collecting releases their buffers
                with suppress(Exception):
                    self._backend.collect(unfinished)
        return results

    def stream(
        self,
        source: str | int | Path | Source,
        max_frames: int | None = None,
        *,
        processors: Sequence[Processor] = (),
    ) -> Generator[tuple[Frame, Detections], None, None]:
        """Detect the objects in every frame of a source, which is read in its own thread.

        Args:
            source: Argument of `open_source`, or an open source.
            max_frames: Number of frames; None for all.
            processors: What works on the results, in order, such as `Tracker()`; closed at the
                end, and not to be used for another source.

        Yields:
            Each frame with its detections, in order; of a live source the newest frames.

        Raises:
            UsageError: If the source does not exist, the detector is closed, or another of its
                streams is running.
            SourceError: If the source cannot be read; if it is damaged, after its readable frames.
        """
        self._check_process()
        with self._lock:
            self._check_idle()
            self._streaming = True
        try:
            opened = open_source(source) if isinstance(source, str | int | Path) else source
            pipeline = Pipeline(
                [opened],
                self._backend,
                PipelineOptions(max_frames=max_frames),
                processors=lambda _: processors,
            )
            for result in pipeline:
                yield result.frame, result.detections
                self._check_open()
        finally:
            self._streaming = False

    def _check_process(self) -> None:
        """Reject calls after a fork, where the threads of the model do not exist.

        They would wait forever, for a thread or for a lock that another one held.
        """
        if os.getpid() != self._process:
            raise UsageError(
                "this detector was created before the process was forked; create a Detector in "
                "each process, or use the start method 'spawn' of multiprocessing"
            )

    def _check_open(self) -> None:
        if self._closed:
            raise UsageError("this detector is closed; create a new Detector")

    def _check_idle(self) -> None:
        """Reject calls that would have to wait for the end of a stream, which may never come."""
        self._check_open()
        if self._streaming:
            raise UsageError(
                "this detector is busy with a stream; create a second Detector for other images"
            )

    def close(self) -> None:
        """Release the model, after the current call; may be called any number of times."""
        if os.getpid() != self._process:
            return
        with self._lock:
            self._closed = True
            self._backend.close()


def _to_frame(image: ImageInput) -> Frame:
    if isinstance(image, Frame):
        return image
    if isinstance(image, str | Path):
        return _read_image(Path(image).expanduser())
    return Frame(to_bgr(image))


def _read_image(path: Path) -> Frame:
    from realtime_ssd.sources.images import Images

    if not path.is_file():
        raise UsageError(f"image file '{path}' does not exist")
    frame = Images(path).read()
    if frame is None:
        raise UsageError(f"'{path}' contains no image")
    return frame
