"""Helpers shared by the importers' tests."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnxruntime
from numpy.typing import NDArray

from realtime_ssd.core.detections import Detections
from realtime_ssd.core.postprocess import PostProcessor, to_frame_detections
from realtime_ssd.core.preprocess import preprocess
from realtime_ssd.core.spec import read_spec


def open_session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


class Ready:
    """An imported file, run with nothing but what its metadata says."""

    def __init__(self, path: Path) -> None:
        self.spec = read_spec(path)
        self.session = open_session(path)
        self.post = PostProcessor(self.spec)

    def heads(self, batch: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        names = [self.spec.scores_output, self.spec.offsets_output]
        return self.session.run(names, {self.spec.input.name: batch})

    def __call__(self, image: NDArray[np.uint8]) -> Detections:
        scores, offsets = self.heads(preprocess(image, self.spec.input)[None])
        height, width = image.shape[:2]
        return to_frame_detections(self.post(scores[0], offsets[0]), self.spec, width, height)


def read_photo(path: Path) -> NDArray[np.uint8]:
    image = cv2.imread(str(path))
    assert image is not None, path
    return image
