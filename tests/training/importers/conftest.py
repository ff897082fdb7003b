"""Helpers shared by the tests of the importers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
from numpy.typing import NDArray

from realtime_ssd.core.detections import Detections
from realtime_ssd.core.postprocess import PostProcessor, to_frame_detections
from realtime_ssd.core.preprocess import preprocess
from realtime_ssd.core.spec import read_spec

Floats = NDArray[np.float32]


def open_session(path: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


class ImportedModel:
    """An imported file, run only according to its metadata."""

    def __init__(self, path: Path) -> None:
        self.spec = read_spec(path)
        self.session = open_session(path)
        self.post_processor = PostProcessor(self.spec)

    def heads(self, batch: Floats) -> list[Floats]:
        names = [self.spec.scores_output, self.spec.offsets_output]
        return [np.asarray(head) for head in self.session.run(names, {self.spec.input.name: batch})]

    def detect(self, image: NDArray[np.uint8]) -> Detections:
        scores, offsets = self.heads(preprocess(image, self.spec.input)[None])
        height, width = image.shape[:2]
        raw = self.post_processor(scores[0], offsets[0])
        return to_frame_detections(raw, self.spec, width, height)


def read_photo(path: Path) -> NDArray[np.uint8]:
    image = cv2.imread(str(path))
    assert image is not None, path
    return np.asarray(image, np.uint8)


def assert_heads_close(actual: list[Floats], expected: list[Floats]) -> None:
    for a, b in zip(actual, expected, strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
