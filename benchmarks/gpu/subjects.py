"""The models that are timed, and a way to carry them to a machine without PyTorch.

    python -m benchmarks.gpu.subjects FOLDER

writes every network without its weights, some 100 kB each. `--models FOLDER` of the proof fills
them with random weights, always the same ones: the time of a network does not depend on them.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from benchmarks.data import Data
from benchmarks.gpu.context import Room, import_torch
from benchmarks.gpu.rows import SkippedError
from realtime_ssd.core.postprocess import PostProcessor
from realtime_ssd.core.preprocess import preprocess
from realtime_ssd.core.spec import ModelSpec, read_spec

__all__ = ["NAMES", "REAL", "Subject", "fill", "find_subject", "hollow", "usual_threshold"]

REAL = "ssd_mobilenet_v1_coco"
NAMES = ("ssd300_vgg16", REAL, "ssdlite320_mobilenet_v3_large", "ssd512_vgg16")
CANDIDATES = 600
"""Of an image, as a trained SSD300 has them above 0.01 on a busy street."""

ALIKE = 1e-3  # scores
LEAST = 1024
"""Weights of fewer values than this are carried: among them are shapes and scales."""

LABELS = ("background", *(f"class {number}" for number in range(1, 21)))


@dataclass(frozen=True)
class Subject:
    """A model to time.

    Attributes:
        name: One of `NAMES`.
        path: Its FP32 ONNX file.
        spec: Its contract.
    """

    name: str
    path: Path
    spec: ModelSpec


def hollow(model: onnx.ModelProto) -> onnx.ModelProto:
    """Take the large weights out of a model; their shapes and spreads stay."""
    emptied = onnx.ModelProto()
    emptied.CopyFrom(model)
    for weight in emptied.graph.initializer:
        if weight.data_type == onnx.TensorProto.FLOAT and np.prod(weight.dims) >= LEAST:
            weight.doc_string = str(float(onnx.numpy_helper.to_array(weight).std()))
            weight.ClearField("raw_data")
            weight.ClearField("float_data")
    return emptied


def fill(model: onnx.ModelProto, seed: int = 0) -> onnx.ModelProto:
    """Give random values of the same spread to the weights that `hollow` took out."""
    rng, filled = np.random.default_rng(seed), onnx.ModelProto()
    filled.CopyFrom(model)
    for weight in filled.graph.initializer:
        floats = weight.data_type == onnx.TensorProto.FLOAT
        if floats and not weight.raw_data and not weight.float_data:
            values = rng.normal(0, float(weight.doc_string), tuple(weight.dims))
            weight.raw_data = values.astype(np.float32).tobytes()
    return filled


def find_subject(room: Room, name: str) -> Subject:
    """Give a model: the trained one from the data folder, the others with random weights.

    Raises:
        SkippedError: If this machine cannot make it.
    """
    ready = room.place / f"{name}.onnx"
    if not ready.exists():
        carried = room.models / f"{name}.onnx" if room.models else None
        if carried is not None and carried.exists():
            onnx.save(fill(onnx.load(str(carried))), str(ready))
        elif name == REAL:
            room.real("weights/ssd_mobilenet_v1_coco_onnx/ssd_mobilenet_v1_coco_300.onnx")
            made = Data(room.data).coco_model(room.place)
            made.replace(ready)
        else:
            onnx.save(_export(name), str(ready))
    return Subject(name, ready, read_spec(ready))


def usual_threshold(subject: Subject, candidates: int = CANDIDATES) -> float:
    """Give the score that as many classes of default boxes exceed as those of a trained model.

    Untrained networks score all classes alike, so that at their own threshold either everything
    or nothing would be decoded. Measured on one random picture by ONNX Runtime. Where the scores
    are too much alike for FP16 to tell them apart, nothing is to be found.
    """
    from realtime_ssd_engines.onnx.verify import onnx_runner

    spec = subject.spec
    size = (spec.input.height, spec.input.width, 3)
    picture = np.random.default_rng(0).integers(0, 256, size, np.uint8)
    scores, _ = onnx_runner(subject.path, spec)(preprocess(picture, spec.input))
    values = PostProcessor(spec).activate(scores)
    if spec.background is not None:
        values = np.delete(values, spec.background, axis=1)
    best = np.sort(values.ravel())[::-1]
    limit = best[min(candidates, len(best) - 1)]
    return float(limit if best[0] - limit > ALIKE else min(best[0] + ALIKE, 1.0))


def _export(name: str) -> onnx.ModelProto:
    import_torch(gpu=False)
    from realtime_ssd_training.export import to_onnx
    from realtime_ssd_training.models import create, names

    if name not in names():
        raise SkippedError(f"there is no model '{name}'")
    return to_onnx(create(name, LABELS))


def main() -> None:
    """Write all networks without weights into a folder."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        if name == REAL:
            continue
        try:
            model = hollow(_export(name))
        except SkippedError as reason:
            print(f"{name}: skipped, {reason}")
            continue
        path = folder / f"{name}.onnx"
        onnx.save(model, str(path))
        print(f"{path}: {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
