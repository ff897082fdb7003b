"""Compiles the CUDA sources for the host and runs them on numpy arrays."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from realtime_ssd_engines.cuda import kernel_params as layout

from realtime_ssd.core.postprocess import RawDetections
from realtime_ssd.core.spec import ModelSpec

HOST = Path(__file__).parent / "host"
KERNELS = Path(layout.__file__).parent / "kernels"
SANITIZE = "REALTIME_SSD_SANITIZE"


@cache
def build(name: str, settings: tuple[tuple[str, str], ...]) -> ctypes.CDLL:
    """Compile `host/NAME.cpp` with the given definitions; one compilation each."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("g++ is not installed, so the kernels cannot be compiled for the host")
    flags = ["-std=c++20", "-O1", "-g", "-fPIC", "-shared", "-ffp-contract=off", "-Wall", "-Werror"]
    flags += ["-Wno-unknown-pragmas", "-Wno-unused-function"]
    if os.environ.get(SANITIZE):
        flags += ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
    flags += [f"-D{key}={value}" for key, value in settings]
    sources = [HOST / f"{name}.cpp", HOST / "shim.h", *sorted(KERNELS.glob("*.cu*"))]
    text = "".join(path.read_text() for path in sources) + " ".join(flags)
    folder = Path(tempfile.gettempdir()) / f"realtime-ssd-host-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    library = folder / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}.so"
    if not library.exists():
        made = library.with_suffix(f".{os.getpid()}")
        command = [compiler, *flags, str(sources[0]), "-o", str(made)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        made.replace(library)
    return ctypes.CDLL(str(library))


def address(array: np.ndarray) -> int:
    """Address of an array's first byte."""
    return int(array.ctypes.data)


class HostDetector:
    """`detect.cu` of one model on the host, with buffers that live from run to run."""

    def __init__(self, spec: ModelSpec, images: int, scores: str = "fp32", offsets: str = "fp32"):
        self.spec, self.images = spec, images
        settings = layout.detect_settings(spec, scores, offsets)  # type: ignore[arg-type]
        self.library = build("detect", tuple(settings.items()))
        self.boxes = spec.num_boxes
        self.types = [np.float32 if kind == "fp32" else np.float16 for kind in (scores, offsets)]
        self.sizes = layout.DetectBuffers.of(spec, self.boxes, images)
        self.counters = np.zeros(self.sizes.counters // 4, np.uint32)
        self.wanted = layout.wanted_bits(spec)
        assert self.library.params_bytes() == layout.DETECT_PARAMS.itemsize
        assert self.library.counters_an_image() == spec.num_classes + layout.COUNTERS

    def __call__(
        self, scores: np.ndarray, offsets: np.ndarray, seed: int = 0, *, classes_first: bool = True
    ) -> list[tuple[layout.Header, RawDetections]]:
        """Run a batch (images × P × C, images × P × 4); blocks and threads in seeded order.

        Without `classes_first` the scores lie in memory as images × C × P.
        """
        if not classes_first:
            scores = scores.transpose(0, 2, 1)
        keep = self.spec.thresholds.max_detections
        output = np.full((self.images, keep + 1, layout.ROW_WORDS), 0xDEADBEEF, np.uint32)
        arrays = {
            "scores": np.ascontiguousarray(scores, self.types[0]),
            "offsets": np.ascontiguousarray(offsets, self.types[1]),
            "default_boxes": self.spec.boxes.boxes(),
            "wanted": self.wanted,
            "candidates": np.full(self.sizes.candidates // 8, 2**64 - 1, np.uint64),
            "counters": self.counters,
            "survivors": np.full(self.sizes.survivors // 8, 2**64 - 1, np.uint64),
            "output": output,
        }
        pointers = {name: address(array) for name, array in arrays.items()}
        params = layout.detect_params(self.spec, self.boxes, self.sizes, pointers)
        if not classes_first:
            params["score_class_stride"], params["score_box_stride"] = self.boxes, 1
        self.library.run_detect(ctypes.c_void_p(address(params)), self.images, seed)
        assert not self.counters.any(), "the kernels must leave their counters at zero"
        return [layout.read_output(words) for words in output]


class HostPreprocessor:
    """`preprocess.cu` of one model on the host."""

    def __init__(self, spec: ModelSpec, output: str = "fp32") -> None:
        self.spec = spec.input
        settings = layout.preprocess_settings(spec.input, output)  # type: ignore[arg-type]
        self.library = build("preprocess", tuple(settings.items()))
        self.type = np.float32 if output == "fp32" else np.float16
        assert self.library.frame_bytes() == layout.FRAME_PARAMS.itemsize
        assert self.library.input_bytes() == layout.INPUT_PARAMS.itemsize

    def run(self, rows: np.ndarray) -> np.ndarray:
        """Fill images × 3 × height × width from rows of FRAME_PARAMS."""
        shape = (len(rows), 3, self.spec.height, self.spec.width)
        output = np.full(shape, np.nan, self.type)
        params = layout.input_params(self.spec)
        self.library.run_preprocess(
            ctypes.c_void_p(address(rows)),
            ctypes.c_void_p(address(params)),
            ctypes.c_void_p(address(output)),
            len(rows),
        )
        return output

    def bgr(self, images: list[np.ndarray]) -> np.ndarray:
        """Pre-process BGR images, which may be views with any row pitch."""
        rows = np.zeros(len(images), layout.FRAME_PARAMS)
        for row, image in zip(rows, images, strict=True):
            size = (image.shape[1], image.shape[0])
            layout.fill_frame(row, self.spec, size, (address(image), 0), (image.strides[0], 0))
        return self.run(rows)

    def nv12(
        self, luma: np.ndarray, chroma: np.ndarray, size: tuple[int, int], colour: layout.Colour
    ) -> np.ndarray:
        """Pre-process one NV12 picture of `size` pixels (width, height)."""
        rows = np.zeros(1, layout.FRAME_PARAMS)
        planes, pitches = (address(luma), address(chroma)), (luma.strides[0], chroma.strides[0])
        layout.fill_frame(rows[0], self.spec, size, planes, pitches, colour)
        return self.run(rows)[0]
