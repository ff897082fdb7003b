"""What host and kernels agree on: compile-time settings, structures, buffer sizes, answers.

Mirrors `kernels/detect.cu` and `kernels/preprocess.cu`; needs no GPU and no CUDA package.
"""

from __future__ import annotations

from dataclasses import dataclass
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
    "FRAME_PARAMS",
    "INPUT_PARAMS",
    "Colour",
    "DetectBuffers",
    "Header",
    "Precision",
    "detect_params",
    "detect_settings",
    "fill_frame",
    "input_params",
    "preprocess_settings",
    "read_output",
    "select_rows",
    "wanted_bits",
]

Precision = Literal["fp32", "fp16"]

PIXELS = 4
ROW_WORDS = 8
COUNTERS = 4
LIMIT = 1024
MAX_BOXES = 1 << 20
MAX_CLASSES = 4096
CANDIDATE_BYTES = 64 << 20
SUPPRESS_THREADS = 256

_SELECT_ROWS = ((128, 64), (256, 32), (1024, 8), (MAX_CLASSES, 2))
_TYPES: dict[Precision, str] = {"fp32": "float", "fp16": "half_t"}
_ACTIVATIONS = {"none": 0, "softmax": 1, "sigmoid": 2}
_CODINGS = {"xywh": 0, "yxhw": 1, "corners": 2}

FRAME_PARAMS = np.dtype(
    [
        ("plane0", "<u8"),
        ("plane1", "<u8"),
        ("pitch0", "<i4"),
        ("pitch1", "<i4"),
        ("width", "<i4"),
        ("height", "<i4"),
        ("format", "<i4"),
        ("left", "<i4"),
        ("top", "<i4"),
        ("inner_width", "<i4"),
        ("inner_height", "<i4"),
        ("reserved", "<i4"),
        ("scale_x", "<f8"),
        ("scale_y", "<f8"),
        ("chroma_scale_x", "<f8"),
        ("chroma_scale_y", "<f8"),
        ("luma_offset", "<f4"),
        ("luma_scale", "<f4"),
        ("red_v", "<f4"),
        ("green_u", "<f4"),
        ("green_v", "<f4"),
        ("blue_u", "<f4"),
    ]
)
INPUT_PARAMS = np.dtype(
    [("width", "<i4"), ("height", "<i4"), ("mean", "<f4", 3), ("scale", "<f4", 3), ("fill", "<i4")]
)
DETECT_PARAMS = np.dtype(
    [
        ("scores", "<u8"),
        ("offsets", "<u8"),
        ("default_boxes", "<u8"),
        ("wanted", "<u8"),
        ("candidates", "<u8"),
        ("counters", "<u8"),
        ("survivors", "<u8"),
        ("output", "<u8"),
        ("boxes", "<i4"),
        ("capacity", "<i4"),
        ("score_threshold", "<f4"),
        ("nms_threshold", "<f4"),
        ("score_margin", "<f4"),
        ("score_class_stride", "<i4"),
        ("score_box_stride", "<i4"),
        ("reserved", "<i4"),
    ]
)


@dataclass(frozen=True, slots=True)
class Colour:
    """How NV12 pixels become RGB: r = y + red_v·v, and so on, y = (Y - offset)·scale.

    Source: ITU-R BT.601 and BT.709, 8 bits.
    """

    luma_offset: float
    luma_scale: float
    red_v: float
    green_u: float
    green_v: float
    blue_u: float

    @classmethod
    def of(cls, standard: Literal["bt601", "bt709"], full_range: bool) -> Colour:
        """Give the factors of a standard, for full (0-255) or limited (16-235) range."""
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
    """Sizes in bytes of the device buffers that decode and NMS of a batch need.

    Attributes:
        capacity: Candidates a class may list; more are counted as overflow.
        candidates: Keys of all candidates.
        counters: Must be zero before the first run; the kernels leave them zero.
        survivors: Keys that came through NMS.
        output: Header and rows of every image.
    """

    capacity: int
    candidates: int
    counters: int
    survivors: int
    output: int

    @classmethod
    def of(cls, spec: ModelSpec, boxes: int, images: int) -> DetectBuffers:
        """Size the buffers for `images` images of `boxes` default boxes.

        Every default box has a place in the list of every class as long as all lists fit into
        64 MiB; beyond that a class keeps at least four times `top_k` places.
        """
        limits, lists = spec.thresholds, spec.num_classes * images
        capacity = min(boxes, max(4 * limits.pre_nms_top_k, CANDIDATE_BYTES // (8 * lists)))
        return cls(
            capacity=capacity,
            candidates=8 * lists * capacity,
            counters=4 * images * (spec.num_classes + COUNTERS),
            survivors=8 * lists * limits.max_detections,
            output=4 * images * (limits.max_detections + 1) * ROW_WORDS,
        )


@dataclass(frozen=True, slots=True)
class Header:
    """What the kernels say about an image besides its detections.

    Attributes:
        count: Number of detections.
        overflow: Candidates that found no place in a list.
        broken: Default boxes whose scores or offsets were NaN.
    """

    count: int
    overflow: int
    broken: int


def detect_settings(
    spec: ModelSpec, scores: Precision = "fp32", offsets: Precision = "fp32"
) -> dict[str, str]:
    """Give the preprocessor definitions of `detect.cu` for one model.

    Raises:
        ModelError: If the model is larger than the kernels' keys allow.
    """
    limits = spec.thresholds
    if limits.pre_nms_top_k > LIMIT or limits.max_detections > LIMIT:
        raise ModelError(
            f"the GPU keeps at most {LIMIT} boxes a class and an image, "
            f"but top-k is {limits.pre_nms_top_k} and keep {limits.max_detections}; choose smaller values"
        )
    if spec.num_boxes >= MAX_BOXES or spec.num_classes > MAX_CLASSES:
        raise ModelError(f"model '{spec.name}' has too many default boxes or classes for the GPU")
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
        "KEEP": str(limits.max_detections),
        **{"VARIANCE_X": x, "VARIANCE_Y": y, "VARIANCE_W": w, "VARIANCE_H": h},
    }


def preprocess_settings(spec: InputSpec, output: Precision = "fp32") -> dict[str, str]:
    """Give the preprocessor definitions of `preprocess.cu` for one model."""
    return {"OUT_T": _TYPES[output], "SWAP_RB": str(int(spec.channels == "RGB"))}


def select_rows(classes: int) -> int:
    """Give the default boxes, and threads, of a block of `ssd_select`."""
    return next(rows for most, rows in _SELECT_ROWS if classes <= most)


def wanted_bits(spec: ModelSpec, classes: tuple[int, ...] | None = None) -> NDArray[np.uint32]:
    """Give one bit a class: set for those to look for (all but the background if None)."""
    chosen = range(spec.num_classes) if classes is None else classes
    bits = np.zeros((spec.num_classes + 31) // 32, np.uint32)
    for label in chosen:
        if label != spec.background:
            bits[label // 32] |= np.uint32(1 << (label % 32))
    return bits


def detect_params(
    spec: ModelSpec, boxes: int, buffers: DetectBuffers, pointers: dict[str, int]
) -> NDArray[np.void]:
    """Fill the parameter structure of the detection kernels.

    Args:
        spec: Contract of the model.
        boxes: Number of default boxes.
        buffers: Sizes the buffers were made with.
        pointers: Device addresses by field name (scores, offsets, default_boxes, wanted,
            candidates, counters, survivors, output).
    """
    limits = spec.thresholds
    params = np.zeros((), DETECT_PARAMS)
    for name, address in pointers.items():
        params[name] = address
    params["boxes"], params["capacity"] = boxes, buffers.capacity
    params["score_threshold"], params["nms_threshold"] = (
        limits.score_threshold,
        limits.iou_threshold,
    )
    params["score_margin"] = _margin(limits.score_threshold)
    params["score_class_stride"], params["score_box_stride"] = 1, spec.num_classes
    return params


def _margin(threshold: float) -> float:
    """Logit below which a score cannot reach the threshold, with room for rounding."""
    if threshold <= 0:
        return float("-inf")
    return log(threshold / (1 - threshold)) - 1e-3 if threshold < 1 else float("inf")


def input_params(spec: InputSpec) -> NDArray[np.void]:
    """Fill the structure that tells the pre-processing kernel about the network's input."""
    params = np.zeros((), INPUT_PARAMS)
    params["width"], params["height"], params["fill"] = spec.width, spec.height, spec.fill
    params["mean"], params["scale"] = spec.mean, spec.scale
    return params


def fill_frame(
    row: NDArray[np.void],
    spec: InputSpec,
    size: tuple[int, int],
    planes: tuple[int, int],
    pitches: tuple[int, int],
    colour: Colour | None = None,
) -> None:
    """Describe one picture of a batch to the pre-processing kernel.

    Args:
        row: One element of an array of `FRAME_PARAMS`, written in place.
        spec: Input of the model.
        size: Width and height in pixels.
        planes: Addresses of the BGR pixels and 0, or of luma and chroma.
        pitches: Bytes from row to row of each plane.
        colour: Factors for NV12; None for BGR.
    """
    spot = letterbox_params(spec, *size)
    row["plane0"], row["plane1"] = planes
    row["pitch0"], row["pitch1"] = pitches
    row["width"], row["height"] = size
    row["left"], row["top"] = spot.x, spot.y
    row["inner_width"], row["inner_height"] = spot.width, spot.height
    for axis, inner, whole in (("x", spot.width, size[0]), ("y", spot.height, size[1])):
        row[f"scale_{axis}"] = 1.0 / (inner / whole)
        row[f"chroma_scale_{axis}"] = 1.0 / (inner / ((whole + 1) // 2))
    row["format"] = int(colour is not None)
    if colour is not None:
        for name in Colour.__slots__:
            row[name] = getattr(colour, name)


def read_output(words: NDArray[np.uint32]) -> tuple[Header, RawDetections]:
    """Read the answer of one image.

    Args:
        words: (keep + 1) × 8 uint32 as the kernels wrote them: header, then rows.

    Returns:
        The header and the detections (boxes as fractions of the input).
    """
    header = Header(*(int(value) for value in words[0, :3]))
    rows = words[1 : header.count + 1]
    return header, RawDetections(
        boxes=rows[:, :4].copy().view(np.float32),
        scores=rows[:, 4].copy().view(np.float32),
        class_ids=rows[:, 5].astype(np.int32),
        box_indices=rows[:, 6].astype(np.int64),
    )
