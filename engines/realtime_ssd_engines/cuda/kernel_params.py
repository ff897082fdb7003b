"""Interface of the kernels: compile-time settings, parameter structs, buffer sizes and outputs.

Mirrors `kernels/detect.cu` and `kernels/preprocess.cu`; needs no GPU and no CUDA package.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import log
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from realtime_ssd.core.errors import ModelError
from realtime_ssd.core.postprocess import RawDetections
from realtime_ssd.core.preprocess import letterbox_params
from realtime_ssd.core.spec import InputSpec, ModelSpec

__all__ = [
    "DETECT_PARAMS",
    "INPUT_PARAMS",
    "SOURCE",
    "Color",
    "DetectBuffers",
    "ImageFormat",
    "ImageHeader",
    "Precision",
    "class_mask",
    "detect_params",
    "detect_settings",
    "input_params",
    "input_table",
    "lists_per_image",
    "preprocess_settings",
    "read_output",
    "select_rows",
    "table_size",
    "write_source",
]

Precision = Literal["fp32", "fp16"]
ImageFormat = Literal["bgr", "nv12"]

PREPROCESS_ROWS = 4
PREPROCESS_THREADS = 128
ROW_WORDS = 8
COUNTERS = 4
MAX_KEPT = 1024
MAX_BOXES = 1 << 20
MAX_CLASSES = 4096
CANDIDATE_BYTES = 64 << 20
SUPPRESS_THREADS = 256

_SELECT_ROWS = ((128, 64), (256, 32), (1024, 8), (MAX_CLASSES, 2))
_TYPES: dict[Precision, str] = {"fp32": "float", "fp16": "half_t"}
_ACTIVATIONS = {"none": 0, "softmax": 1, "sigmoid": 2}
_CODINGS = {"xywh": 0, "yxhw": 1, "corners": 2}
_FORMATS: dict[ImageFormat, int] = {"bgr": 1, "nv12": 2}
_COLOR_BYTES = 32

SOURCE = np.dtype(
    [
        ("plane0", "<u8"),
        ("plane1", "<u8"),
        ("pitch0", "<i4"),
        ("pitch1", "<i4"),
        ("format", "<i4"),
        ("reserved", "<i4"),
    ]
)
"""Pixels of one image of a batch; a row of zeros is a blank image."""
_COLUMN_TAP = np.dtype([("low", "<i4"), ("weights", "<u4")])
_ROW_TAP = np.dtype(
    [("upper", "<i4"), ("lower", "<i4"), ("upper_weight", "<u4"), ("lower_weight", "<u4")]
)
INPUT_PARAMS = np.dtype(
    [("width", "<i4"), ("height", "<i4"), ("mean", "<f4", 3), ("scale", "<f4", 3), ("fill", "<i4")]
)
DETECT_PARAMS = np.dtype(
    [
        ("scores", "<u8"),
        ("offsets", "<u8"),
        ("default_boxes", "<u8"),
        ("class_mask", "<u8"),
        ("candidates", "<u8"),
        ("counters", "<u8"),
        ("survivors", "<u8"),
        ("output", "<u8"),
        ("boxes", "<i4"),
        ("capacity", "<i4"),
        ("score_threshold", "<f4"),
        ("iou_threshold", "<f4"),
        ("score_margin", "<f4"),
        ("score_class_stride", "<i4"),
        ("score_box_stride", "<i4"),
        ("reserved", "<i4"),
    ]
)


@dataclass(frozen=True, slots=True)
class Color:
    """Coefficients of the NV12 to RGB conversion: r = y + red_v·v etc., y = (Y - offset)·scale.

    Source: ITU-R BT.601 and BT.709, 8 bits.
    """

    luma_offset: float
    luma_scale: float
    red_v: float
    green_u: float
    green_v: float
    blue_u: float

    @classmethod
    def of(cls, standard: Literal["bt601", "bt709"], full_range: bool) -> Color:
        """Return the coefficients of a standard for full (0-255) or limited (16-235) range."""
        red, blue = (0.299, 0.114) if standard == "bt601" else (0.2126, 0.0722)
        green = 1.0 - red - blue
        chroma = 1.0 if full_range else 255.0 / 224.0
        return cls(
            luma_offset=0.0 if full_range else 16.0,
            luma_scale=1.0 if full_range else 255.0 / 219.0,
            red_v=2 * (1 - red) * chroma,
            green_u=-2 * (1 - blue) * blue / green * chroma,
            green_v=-2 * (1 - red) * red / green * chroma,
            blue_u=2 * (1 - blue) * chroma,
        )


@dataclass(frozen=True, slots=True)
class DetectBuffers:
    """Sizes in bytes of the device buffers for decoding and NMS of a batch.

    Attributes:
        capacity: Maximum candidates per list and image; further ones are counted as overflow.
        candidates: Keys of all candidates.
        counters: Must be zero before the first run; the kernels reset them to zero.
        survivors: Keys that NMS keeps.
        output: Header and detection rows of every image.
    """

    capacity: int
    candidates: int
    counters: int
    survivors: int
    output: int

    @classmethod
    def for_batch(cls, spec: ModelSpec, boxes: int, images: int) -> DetectBuffers:
        """Return the sizes for `images` images with `boxes` default boxes each.

        Each list holds all possible candidates as long as all lists fit into 64 MiB; otherwise at
        least four times `pre_nms_top_k` candidates.
        """
        limits, lists = spec.thresholds, lists_per_image(spec) * images
        possible = boxes * (spec.num_classes if limits.agnostic_nms else 1)
        capacity = min(possible, max(4 * limits.pre_nms_top_k, CANDIDATE_BYTES // (8 * lists)))
        return cls(
            capacity=capacity,
            candidates=8 * lists * capacity,
            counters=4 * images * (spec.num_classes + COUNTERS),
            survivors=8 * lists * limits.max_detections,
            output=4 * images * (limits.max_detections + 1) * ROW_WORDS,
        )


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """Counts that the kernels report for an image.

    Attributes:
        count: Number of detections.
        overflow: Candidates dropped because a list was full.
        nan_boxes: Default boxes with NaN in their scores or offsets.
    """

    count: int
    overflow: int
    nan_boxes: int


def detect_settings(
    spec: ModelSpec, scores: Precision = "fp32", offsets: Precision = "fp32"
) -> dict[str, str]:
    """Return the preprocessor definitions of `detect.cu` for a model.

    Raises:
        ModelError: If the model exceeds the limits of the kernels.
    """
    limits = spec.thresholds
    if max(limits.pre_nms_top_k, limits.max_detections) > MAX_KEPT:
        raise ModelError(
            f"`pre_nms_top_k` and `max_detections` must be at most {MAX_KEPT} on the GPU, not "
            f"{limits.pre_nms_top_k} and {limits.max_detections}"
        )
    if spec.num_boxes >= MAX_BOXES or spec.num_classes > MAX_CLASSES:
        raise ModelError(
            f"model '{spec.name}' has too many default boxes or classes for the GPU: "
            f"{spec.num_boxes} and {spec.num_classes}"
        )
    x, y, w, h = (f"{value!r}f" for value in spec.variances)
    return {
        "SCORE_T": _TYPES[scores],
        "OFFSET_T": _TYPES[offsets],
        "CLASSES": str(spec.num_classes),
        "BACKGROUND": str(-1 if spec.background is None else spec.background),
        "ACTIVATION": str(_ACTIVATIONS[spec.activation]),
        "CODING": str(_CODINGS[spec.coding]),
        "CLIP": str(int(spec.clip_before_nms)),
        "TOP_K": str(limits.pre_nms_top_k),
        "MAX_DETECTIONS": str(limits.max_detections),
        "CLASS_SCORES": str(int(bool(limits.class_scores))),
        "AGNOSTIC": str(int(limits.agnostic_nms)),
        **{"VARIANCE_X": x, "VARIANCE_Y": y, "VARIANCE_W": w, "VARIANCE_H": h},
    }


def preprocess_settings(spec: InputSpec, output: Precision = "fp32") -> dict[str, str]:
    """Return the preprocessor definitions of `preprocess.cu` for a model."""
    return {"OUT_T": _TYPES[output], "SWAP_RB": str(int(spec.channels == "RGB"))}


def select_rows(classes: int) -> int:
    """Return the default boxes per block of `ssd_select`, which is also its block size."""
    return next(rows for max_classes, rows in _SELECT_ROWS if classes <= max_classes)


def lists_per_image(spec: ModelSpec) -> int:
    """Return the number of lists of candidates of an image: one per class, or one for all."""
    return 1 if spec.thresholds.agnostic_nms else spec.num_classes


def class_mask(spec: ModelSpec, classes: tuple[int, ...] | None = None) -> NDArray[np.uint32]:
    """Return a bit mask of the classes to detect; all except the background by default.

    The score thresholds of the classes follow as bits of float32 numbers, if there are any.
    """
    selected = range(spec.num_classes) if classes is None else classes
    bits = np.zeros((spec.num_classes + 31) // 32, np.uint32)
    for label in selected:
        if label != spec.background:
            bits[label // 32] |= np.uint32(1 << (label % 32))
    scores = np.array(spec.thresholds.class_scores, np.float32)
    return np.concatenate([bits, scores.view(np.uint32)])


def detect_params(
    spec: ModelSpec, boxes: int, buffers: DetectBuffers, pointers: dict[str, int]
) -> NDArray[np.void]:
    """Return the parameter struct of the detection kernels.

    Args:
        spec: Specification of the model.
        boxes: Number of default boxes.
        buffers: Sizes with which the buffers were allocated.
        pointers: Device addresses by field name (scores, offsets, default_boxes, class_mask,
            candidates, counters, survivors, output).
    """
    limits = spec.thresholds
    params = np.zeros((), DETECT_PARAMS)
    for name, address in pointers.items():
        params[name] = address
    params["boxes"], params["capacity"] = boxes, buffers.capacity
    params["score_threshold"] = limits.score_threshold
    params["iou_threshold"] = limits.iou_threshold
    params["score_margin"] = _logit_margin(limits.lowest_score)
    params["score_class_stride"], params["score_box_stride"] = 1, spec.num_classes
    return params


def _logit_margin(threshold: float) -> float:
    """Return the logit below which a score cannot reach the threshold, less a rounding margin."""
    if threshold <= 0:
        return float("-inf")
    return log(threshold / (1 - threshold)) - 1e-3 if threshold < 1 else float("inf")


def input_params(spec: InputSpec) -> NDArray[np.void]:
    """Return the parameter struct that describes the network input to the pre-processing kernel."""
    params = np.zeros((), INPUT_PARAMS)
    params["width"], params["height"], params["fill"] = spec.width, spec.height, spec.fill
    params["mean"], params["scale"] = spec.mean, spec.scale
    return params


def write_source(
    row: NDArray[np.void],
    planes: tuple[int, int],
    pitches: tuple[int, int],
    image_format: ImageFormat,
) -> None:
    """Describe the pixels of one image for the pre-processing kernel.

    Args:
        row: One element of an array of `SOURCE`, written in place.
        planes: Addresses of the BGR pixels and 0, or of luma and chroma.
        pitches: Row pitch of each plane in bytes.
        image_format: Layout of the pixels.
    """
    row["plane0"], row["plane1"] = planes
    row["pitch0"], row["pitch1"] = pitches
    row["format"] = _FORMATS[image_format]


def table_size(spec: InputSpec) -> int:
    """Return the bytes of the tables of one image; see `input_table`."""
    columns = -(-spec.width * _COLUMN_TAP.itemsize // 16) * 16
    return _COLOR_BYTES + 2 * (spec.height * _ROW_TAP.itemsize + columns)


@lru_cache(maxsize=64)
def input_table(spec: InputSpec, size: tuple[int, int], color: Color | None = None) -> bytes:
    """Return the tables with which the pre-processing kernel resizes images of one size.

    They contain the coefficients of NV12, then, for every row and column of the input, the source
    coordinates and weights of luma or BGR and of chroma, as OpenCV computes them for 8-bit images.

    Args:
        spec: Input of the model.
        size: Width and height of the images in pixels.
        color: Coefficients for NV12; None for BGR.
    """
    (width, height), box = size, letterbox_params(spec, *size)
    table = bytearray(table_size(spec))
    values = np.frombuffer(table, np.float32, _COLOR_BYTES // 4)
    if color is not None:
        values[: len(Color.__slots__)] = [getattr(color, name) for name in Color.__slots__]
    rows = np.frombuffer(table, _ROW_TAP, 2 * spec.height, _COLOR_BYTES)
    columns = np.frombuffer(table, _COLUMN_TAP, 2 * spec.width, _COLOR_BYTES + rows.nbytes)
    columns["low"] = -1  # outside the image, like rows without weights
    for number, divisor in enumerate((1, 2)):  # luma or BGR, chroma
        row_taps = rows[number * spec.height + box.y :][: box.height]
        _write_rows(row_taps, -(-height // divisor))
        column_taps = columns[number * spec.width + box.x :][: box.width]
        _write_columns(column_taps, -(-width // divisor))
    return bytes(table)


def _write_rows(taps: NDArray[np.void], size: int) -> None:
    """Write the taps of rows; beyond the border OpenCV blends a row with itself."""
    low, weight = _source_positions(len(taps), size)
    taps["upper"], taps["lower"] = np.clip(low, 0, size - 1), np.clip(low + 1, 0, size - 1)
    taps["upper_weight"], taps["lower_weight"] = 2048 - weight, weight


def _write_columns(taps: NDArray[np.void], size: int) -> None:
    """Write the taps of columns; beyond the border OpenCV drops the second column.

    The kernel always reads two columns, so the last one is the second of its pair.
    """
    low, weight = _source_positions(len(taps), size)
    first = np.clip(low, 0, max(size - 2, 0))
    weight = np.where(low < 0, 0, np.where(low >= size - 1, 2048 * (size > 1), weight))
    taps["low"], taps["weights"] = first, (2048 - weight) | weight << 16


def _source_positions(targets: int, size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the source coordinate below each target, and the weight of the next one in 1/2048.

    OpenCV computes positions in double precision and rounds them to single precision.
    """
    scale = 1.0 / (targets / size)
    position = ((np.arange(targets) + 0.5) * scale - 0.5).astype(np.float32)
    low = np.floor(position)
    weight = np.rint((position - low) * np.float32(2048))
    return low.astype(np.int64), weight.astype(np.int64)


def read_output(words: NDArray[np.uint32]) -> tuple[ImageHeader, RawDetections]:
    """Parse the kernels' output for one image.

    Args:
        words: (max_detections + 1) × 8 uint32: header, then one row per detection.

    Returns:
        The header and the detections, with boxes as fractions of the input.
    """
    header = ImageHeader(*(int(value) for value in words[0, :3]))
    rows = words[1 : header.count + 1]
    return header, RawDetections(
        boxes=rows[:, :4].copy().view(np.float32),
        scores=rows[:, 4].copy().view(np.float32),
        class_ids=rows[:, 5].astype(np.int32),
        box_indices=rows[:, 6].astype(np.int64),
    )
