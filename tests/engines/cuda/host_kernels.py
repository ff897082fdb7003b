"""Compiles the CUDA kernels for the host and runs them on numpy arrays."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from realtime_ssd_engines.cuda import kernel_params
from realtime_ssd_engines.cuda.kernel_params import Color, DetectBuffers, ImageHeader, Precision

from realtime_ssd.core.postprocess import RawDetections
from realtime_ssd.core.spec import ModelSpec
from tests.engines.standins import unavailable

HOST = Path(__file__).parent / "host"
KERNELS = Path(kernel_params.__file__).parent / "kernels"
SANITIZE = "REALTIME_SSD_SANITIZE"
_DTYPES: dict[Precision, Any] = {"fp32": np.float32, "fp16": np.float16}


@cache
def build(name: str, settings: tuple[tuple[str, str], ...]) -> ctypes.CDLL:
    """Compile `host/NAME.cpp` with preprocessor definitions, or return the library from a cache."""
    flags = ["-shared", "-ffp-contract=off", *(f"-D{key}={value}" for key, value in settings)]
    return ctypes.CDLL(str(_compile(f"{name}.cpp", ".so", [*flags, str(_fibres())])))


@cache
def _fibres() -> Path:
    return _compile("fibres.cpp", ".o", ["-c", "-U_FORTIFY_SOURCE"])


def _compile(source: str, suffix: str, flags: list[str]) -> Path:
    """Compile a source file in `host/` into a cache folder shared by all test processes."""
    compiler = shutil.which("g++")
    if compiler is None:
        unavailable("g++ is not installed, so the kernels cannot be compiled for the host")
    flags = ["-std=c++20", "-O1", "-g", "-fPIC", "-Wall", "-Werror", "-Wno-unknown-pragmas", *flags]
    flags += ["-Wno-unused-function"]
    if os.environ.get(SANITIZE):
        flags += ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
    sources = [HOST / source, HOST / "shim.h", *sorted(KERNELS.glob("*.cu*"))]
    text = "".join(path.read_text() for path in sources) + " ".join(flags)
    folder = Path(tempfile.gettempdir()) / f"realtime-ssd-host-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    output = folder / f"{Path(source).stem}-{digest}{suffix}"
    if not output.exists():
        partial = output.with_suffix(f".{os.getpid()}{suffix}")
        command = [compiler, str(HOST / source), *flags, "-o", str(partial)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        partial.replace(output)
    return output


def address(array: NDArray[Any]) -> int:
    """Return the address of an array's first byte."""
    return int(array.ctypes.data)


class HostDetector:
    """`detect.cu` for one model on the host, with counters that persist between runs."""

    def __init__(
        self,
        spec: ModelSpec,
        images: int,
        scores: Precision = "fp32",
        offsets: Precision = "fp32",
    ) -> None:
        self.spec, self.images = spec, images
        settings = kernel_params.detect_settings(spec, scores, offsets)
        self.library = build("detect", tuple(settings.items()))
        self.boxes = spec.num_boxes
        self.dtypes = [_DTYPES[scores], _DTYPES[offsets]]
        self.sizes = DetectBuffers.for_batch(spec, self.boxes, images)
        self.counters = np.zeros(self.sizes.counters // 4, np.uint32)
        self.class_mask = kernel_params.class_mask(spec)
        assert self.library.params_size() == kernel_params.DETECT_PARAMS.itemsize
        assert self.library.counters_per_image() == spec.num_classes + kernel_params.COUNTERS

    def __call__(
        self,
        scores: NDArray[Any],
        offsets: NDArray[Any],
        seed: int = 0,
        *,
        classes_first: bool = True,
    ) -> list[tuple[ImageHeader, RawDetections]]:
        """Run a batch (images × P × C, images × P × 4), with blocks and threads in seeded order.

        Without `classes_first`, the scores are images × C × P in memory.
        """
        if not classes_first:
            scores = scores.transpose(0, 2, 1)
        rows = self.spec.thresholds.max_detections + 1
        output = np.full((self.images, rows, kernel_params.ROW_WORDS), 0xDEADBEEF, np.uint32)
        arrays = {
            "scores": np.ascontiguousarray(scores, self.dtypes[0]),
            "offsets": np.ascontiguousarray(offsets, self.dtypes[1]),
            "default_boxes": self.spec.boxes.boxes(),
            "class_mask": self.class_mask,
            "candidates": np.full(self.sizes.candidates // 8, 2**64 - 1, np.uint64),
            "counters": self.counters,
            "survivors": np.full(self.sizes.survivors // 8, 2**64 - 1, np.uint64),
            "output": output,
        }
        pointers = {name: address(array) for name, array in arrays.items()}
        params = kernel_params.detect_params(self.spec, self.boxes, self.sizes, pointers)
        if not classes_first:
            params["score_class_stride"], params["score_box_stride"] = self.boxes, 1
        self.library.run_detect(ctypes.c_void_p(address(params)), self.images, seed)
        assert not self.counters.any(), "the kernels must reset their counters"
        return [kernel_params.read_output(words) for words in output]


class HostPreprocessor:
    """`preprocess.cu` for one model on the host."""

    def __init__(self, spec: ModelSpec, output: Precision = "fp32") -> None:
        self.spec = spec.input
        settings = kernel_params.preprocess_settings(spec.input, output)
        self.library = build("preprocess", tuple(settings.items()))
        self.dtype = _DTYPES[output]
        assert self.library.source_size() == kernel_params.SOURCE.itemsize
        params = kernel_params.input_params(self.spec)
        assert self.library.input_params_size() == params.nbytes
        size = self.library.table_size(ctypes.c_void_p(address(params)))
        assert size == kernel_params.table_size(self.spec)

    def run(self, rows: NDArray[np.void], tables: list[bytes]) -> NDArray[Any]:
        """Return images × 3 × height × width for rows of SOURCE and their tables."""
        shape = (len(rows), 3, self.spec.height, self.spec.width)
        output = np.full(shape, np.nan, self.dtype)
        params = kernel_params.input_params(self.spec)
        table = _aligned(b"".join(tables))
        self.library.run_preprocess(
            *(ctypes.c_void_p(address(array)) for array in (rows, table, params, output)),
            len(rows),
        )
        return output

    def bgr(self, images: list[NDArray[np.uint8]]) -> NDArray[Any]:
        """Pre-process BGR images, which may be views with any row pitch."""
        rows, tables, planes = np.zeros(len(images), kernel_params.SOURCE), [], []
        for number, image in enumerate(images):
            height, width = image.shape[:2]
            plane = _padded(image)
            planes.append(plane)
            kernel_params.write_source(
                rows[number], (address(plane), 0), (image.strides[0], 0), "bgr"
            )
            tables.append(kernel_params.input_table(self.spec, (width, height)))
        return self.run(rows, tables)

    def nv12(
        self,
        luma: NDArray[np.uint8],
        chroma: NDArray[np.uint8],
        size: tuple[int, int],
        color: Color,
    ) -> NDArray[Any]:
        """Pre-process one NV12 image of `size` pixels (width, height)."""
        rows = np.zeros(1, kernel_params.SOURCE)
        planes, pitches = (_padded(luma), _padded(chroma)), (luma.strides[0], chroma.strides[0])
        addresses = (address(planes[0]), address(planes[1]))
        kernel_params.write_source(rows[0], addresses, pitches, "nv12")
        image: NDArray[Any] = self.run(rows, [kernel_params.input_table(self.spec, size, color)])[0]
        return image


def _aligned(content: bytes) -> NDArray[np.uint8]:
    """Return bytes at an address that is a multiple of 16."""
    values = np.zeros(len(content) + 32, np.uint8)
    begin = -address(values) % 16
    values[begin : begin + len(content)] = np.frombuffer(content, np.uint8)
    return values[begin:]


def _padded(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the rows of a plane, in its pitch, at an odd address within aligned words.

    As in GPU memory, whole words around the plane can be read.
    """
    pitch, row_bytes = image.strides[0], image.nbytes // len(image)
    values = np.full(pitch * len(image) + 16, 0xEE, np.uint8)
    begin = -address(values) % 4 + 1
    for number, row in enumerate(image):
        start = begin + number * pitch
        values[start : start + row_bytes] = row.reshape(-1)
    return values[begin:]
