"""Models to time, and a way to transfer them to a machine without PyTorch.

    python -m benchmarks.gpu.models FOLDER

writes all networks without their weights, about 100 kB each. With `--models FOLDER`, the benchmark
fills in random weights with a fixed seed: the run time of a network does not depend on its weights.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from benchmarks.data import Data
from benchmarks.gpu.context import GpuContext, import_torch
from benchmarks.gpu.model_names import NAMES, TRAINED
from benchmarks.gpu.report_rows import SkippedError
from realtime_ssd.core.postprocess import PostProcessor
from realtime_ssd.core.preprocess import preprocess
from realtime_ssd.core.spec import ModelSpec, read_spec

if TYPE_CHECKING:
    import onnx

__all__ = [
    "COCO_LABELS",
    "LABELS",
    "NAMES",
    "TRAINED",
    "BenchmarkModel",
    "fill_weights",
    "find_model",
    "onnx_scores",
    "random_image",
    "strip_weights",
    "typical_threshold",
]

CANDIDATES = 600
"""Candidates per image, as a trained SSD300 has above 0.01 in a busy street."""

MIN_SCORE_RANGE = 1e-3  # scores
MIN_STRIPPED_VALUES = 1024
"""Smaller tensors are kept, because they include shapes and scales."""

LABELS = ("background", *(f"class {number}" for number in range(1, 21)))
COCO_LABELS = ("background", *(f"class {number}" for number in range(1, 91)))


@dataclass(frozen=True)
class BenchmarkModel:
    """A model to time.

    Attributes:
        name: One of `NAMES`.
        path: FP32 ONNX file.
        spec: Specification of the model.
    """

    name: str
    path: Path
    spec: ModelSpec


def strip_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model without its large weights, but with their shapes and standard deviations."""
    import onnx

    stripped = onnx.ModelProto()
    stripped.CopyFrom(model)
    for weight in stripped.graph.initializer:
        if (
            weight.data_type == onnx.TensorProto.FLOAT
            and np.prod(weight.dims) >= MIN_STRIPPED_VALUES
        ):
            weight.doc_string = str(float(onnx.numpy_helper.to_array(weight).std()))
            weight.ClearField("raw_data")
            weight.ClearField("float_data")
    return stripped


def fill_weights(model: onnx.ModelProto, seed: int = 0) -> onnx.ModelProto:
    """Fill in random weights with the standard deviations that `strip_weights` recorded."""
    import onnx

    rng, filled = np.random.default_rng(seed), onnx.ModelProto()
    filled.CopyFrom(model)
    for weight in filled.graph.initializer:
        floats = weight.data_type == onnx.TensorProto.FLOAT
        if floats and not weight.raw_data and not weight.float_data:
            values = rng.normal(0, float(weight.doc_string), tuple(weight.dims))
            weight.raw_data = values.astype(np.float32).tobytes()
    return filled


def find_model(context: GpuContext, name: str) -> BenchmarkModel:
    """Return a model: the trained one from the data folder, the others with random weights.

    Raises:
        SkippedError: If the model is not available on this machine.
    """
    import onnx

    path = context.workdir / f"{name}.onnx"
    if not path.exists():
        stripped_file = context.models / f"{name}.onnx" if context.models else None
        if stripped_file is not None and stripped_file.exists():
            onnx.save(fill_weights(onnx.load(str(stripped_file))), str(path))
        elif name == TRAINED:
            context.data_file("weights/ssd_mobilenet_v1_coco_onnx/ssd_mobilenet_v1_coco_300.onnx")
            Data(context.data).coco_model(context.workdir).replace(path)
        else:
            onnx.save(_export(name), str(path))
    return BenchmarkModel(name, path, read_spec(path))


def random_image(spec: ModelSpec) -> NDArray[np.float32]:
    """Return a random image as the network's input, 3 × height × width."""
    size = (spec.input.height, spec.input.width, 3)
    image = np.random.default_rng(0).integers(0, 256, size, np.uint8)
    return preprocess(image, spec.input)


def onnx_scores(model: BenchmarkModel) -> NDArray[np.float32]:
    """Return the score head of a random image, computed with ONNX Runtime."""
    from realtime_ssd_engines.onnx.verify import onnx_runner

    scores, _ = onnx_runner(model.path, model.spec)(random_image(model.spec))
    return scores


def typical_threshold(
    spec: ModelSpec, scores: NDArray[np.float32], candidates: int = CANDIDATES
) -> float:
    """Return the score threshold with as many candidates as a trained model has.

    The scores of untrained networks are almost equal, so that their own threshold would select all
    candidates or none. If FP16 cannot distinguish the scores, the threshold selects no candidates.

    Args:
        spec: Specification of the model.
        scores: P × C score head that the network computed for an image.
        candidates: Number of scores above the threshold.
    """
    values = PostProcessor(spec).activate(scores)
    if spec.background is not None:
        values = np.delete(values, spec.background, axis=1)
    best = np.sort(values.ravel())[::-1]
    limit = best[min(candidates, len(best) - 1)]
    return float(
        limit if best[0] - limit > MIN_SCORE_RANGE else min(best[0] + MIN_SCORE_RANGE, 1.0)
    )


def _export(name: str) -> onnx.ModelProto:
    import_torch(gpu=False)
    from realtime_ssd_training.export import to_onnx
    from realtime_ssd_training.models import create, names

    if name not in names():
        raise SkippedError(f"unknown model '{name}'")
    return to_onnx(create(name, LABELS))


def main() -> None:
    """Write all networks without their weights to a folder."""
    import onnx

    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        if name == TRAINED:
            continue
        try:
            model = strip_weights(_export(name))
        except SkippedError as reason:
            print(f"{name}: skipped, {reason}")
            continue
        path = folder / f"{name}.onnx"
        onnx.save(model, str(path))
        print(f"{path}: {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
