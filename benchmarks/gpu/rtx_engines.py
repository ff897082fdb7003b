"""Engines of all models, built by the real TensorRT-RTX builder, which requires no GPU.

    python -m benchmarks.gpu.rtx_engines [--data FOLDER] [--only NAME...] [--output FILE]

builds every registered network, the bundled model, a model of every importer and, with `--data`,
the downloaded ones, in FP32, FP16 and INT8, with a dynamic batch and with a fixed one. It compares
the types and shapes of inputs and outputs, as TensorRT sees them, with the specification, and
writes layers, sizes and seconds to a JSON file.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import cv2
import onnx
from realtime_ssd_engines.onnx.precision import to_fp16
from realtime_ssd_engines.onnx.quantize import quantize
from realtime_ssd_engines.onnx.verify import synthetic_frames
from realtime_ssd_engines.requirements import installed_flavors
from realtime_ssd_engines.tensorrt import compat, library
from realtime_ssd_engines.tensorrt.layers import parse_build_log

from benchmarks.result_file import RESULTS
from realtime_ssd.core.cpu import cpu_count
from realtime_ssd.core.errors import ModelError
from realtime_ssd.core.spec import ModelSpec, read_spec
from realtime_ssd.profiling.machine import cpu_name

__all__ = ["PRECISIONS", "BuiltEngine", "build_engine", "fix_batch", "models", "to_precision"]

CAPABILITY = "8.9"
MAX_BATCH = 32
PRECISIONS = ("fp32", "fp16", "int8")
CALIBRATION_IMAGES = 2
"""Random weights have no accuracy to keep."""


@dataclass(frozen=True)
class BuiltEngine:
    """Result of one build.

    Attributes:
        model: Name of the model.
        precision: "fp32", "fp16" or "int8".
        batch: Batch sizes: "1-32" or "1".
        layers: Layers of the network that TensorRT's parser made of the ONNX file.
        convolutions: Convolutions of the engine by the type of their input, such as "Int8".
        megabytes: Size of the engine.
        seconds: Processor time to parse and build it, on all threads.
        mismatch: Difference between an input or output and the specification; "" if there is none.
        error: Why it cannot be built; "" if it was.
    """

    model: str
    precision: str
    batch: str
    layers: int = 0
    convolutions: dict[str, int] = field(default_factory=dict)
    megabytes: float = 0.0
    seconds: float = 0.0
    mismatch: str = ""
    error: str = ""


def build_engine(name: str, path: Path, spec: ModelSpec, precision: str) -> BuiltEngine:
    """Build the engine of an ONNX file for one card.

    Args:
        name: Name of the model.
        path: ONNX file in the precision.
        spec: Specification of the model.
        precision: "fp32", "fp16" or "int8".
    """
    begin = time.process_time()
    builder, network, config, messages = compat.create_builder(0, "rtx", [CAPABILITY])
    compat.parse_onnx(network, messages, str(path), "rtx")
    compat.set_precision(
        network, config, fp16=precision != "fp32", int8=precision == "int8", flavor="rtx"
    )
    image = (3, spec.input.height, spec.input.width)
    dynamic = network.get_input(0).shape[0] == -1
    if dynamic:
        profiles = [(1, 1, 1), (1, MAX_BATCH, MAX_BATCH)]
        for sizes in profiles:
            compat.add_profile(builder, config, spec.input.name, [(n, *image) for n in sizes])
    plan = compat.build_plan(builder, network, config, messages, "rtx")
    seconds = time.process_time() - begin
    return BuiltEngine(
        name,
        precision,
        f"1-{MAX_BATCH}" if dynamic else "1",
        network.num_layers,
        convolution_types(messages.layers),
        round(len(plan) / 1e6, 2),
        round(seconds, 2),
        _mismatch(network, spec, -1 if dynamic else 1, precision),
    )


def convolution_types(build_log: str) -> dict[str, int]:
    """Return the number of convolutions by the type of their inputs, both image and weights.

    Args:
        build_log: Layers that the build logged; those of further profiles are not counted.
    """
    types = Counter(
        "/".join(sorted({tensor.split()[0] for tensor in layer.inputs[:2]}))
        for layer in parse_build_log(build_log)
        if layer.kind == "correlation" and "[profile" not in layer.name
    )
    return dict(sorted(types.items()))


def _mismatch(network: Any, spec: ModelSpec, batch: int, precision: str) -> str:
    """Compare the inputs and outputs that TensorRT sees with the specification."""
    trt = library.library("rtx")
    dtype = trt.float16 if precision == "fp16" else trt.float32
    expected = {
        spec.input.name: (batch, 3, spec.input.height, spec.input.width),
        spec.scores_output: (batch, spec.num_boxes, spec.num_classes),
        spec.offsets_output: (batch, spec.num_boxes, 4),
    }
    tensors = [network.get_input(i) for i in range(network.num_inputs)]
    tensors += [network.get_output(i) for i in range(network.num_outputs)]
    actual = {tensor.name: tuple(tensor.shape) for tensor in tensors}
    if actual != expected:
        return f"shapes are {actual}, expected {expected}"
    types = {tensor.name: str(tensor.dtype) for tensor in tensors if tensor.dtype != dtype}
    return f"types are {types}, expected {dtype}" if types else ""


def to_precision(path: Path, precision: str, folder: Path, photos: Path) -> Path:
    """Convert an FP32 ONNX file as an engine build does; return the file to build."""
    output = folder / f"{path.stem}-{precision}.onnx"
    if precision == "fp32":
        return path
    if precision == "int8":
        quantize(path, output, photos)
    else:
        onnx.save(to_fp16(onnx.load(str(path)), keep_io=False), str(output))
    return output


def fix_batch(path: Path, output: Path) -> Path:
    """Write a copy of an ONNX file whose batch is fixed to 1."""
    model = onnx.load(str(path))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    del model.graph.value_info[:]
    onnx.save(model, str(output))
    return output


def models(folder: Path, data: Path | None) -> Iterator[tuple[str, Callable[[], Path]]]:
    """Yield the name of each model and a function that writes its FP32 ONNX file.

    Args:
        folder: Folder for the files.
        data: Folder with downloaded weights, or None.
    """
    from realtime_ssd_training.models import names

    from tests.engines.tensorrt.imported_models import IMPORTED, import_random_model

    for name in names():
        yield name, lambda name=name: _registered(name, folder)  # type: ignore[misc]
    yield "street (bundled)", lambda: _bundled(folder)
    for name in IMPORTED:
        empty = folder / name
        empty.mkdir()
        yield name, lambda name=name, empty=empty: import_random_model(name, empty)  # type: ignore[misc]
    for path in sorted((data or Path("/nonexistent")).glob("weights/ssd_*/*.onnx")):
        yield path.stem, lambda path=path: _downloaded(path, folder)  # type: ignore[misc]


def _registered(name: str, folder: Path) -> Path:
    from realtime_ssd_training.export import to_onnx
    from realtime_ssd_training.models import create

    path = folder / f"{name}.onnx"
    onnx.save(to_onnx(create(name, ("background", "a", "b"))), str(path))
    return path


def _bundled(folder: Path) -> Path:
    path = folder / "street.onnx"
    with as_file(files("realtime_ssd.assets") / "street.onnx") as source:
        path.write_bytes(source.read_bytes())
    return path


def _downloaded(source: Path, folder: Path) -> Path:
    from realtime_ssd_training.importers import import_model

    path = folder / source.name
    import_model(source, path)
    return path


def write_photos(folder: Path) -> Path:
    """Write calibration images."""
    folder.mkdir()
    for number, image in enumerate(synthetic_frames(CALIBRATION_IMAGES)):
        cv2.imwrite(str(folder / f"{number}.png"), image)
    return folder


def build_all(
    name: str, path: Path, folder: Path, photos: Path, precisions: tuple[str, ...] = PRECISIONS
) -> Iterator[BuiltEngine]:
    """Build a model in several precisions, with a dynamic batch and a fixed one."""
    spec = read_spec(path)
    for precision in precisions:
        converted = to_precision(path, precision, folder, photos)
        for file in (converted, fix_batch(converted, folder / "fixed.onnx")):
            try:
                yield build_engine(name, file, spec, precision)
            except ModelError as error:
                yield BuiltEngine(name, precision, "", error=str(error))


def main() -> int:
    """Build all engines; return 1 if one fails."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with downloaded weights")
    parser.add_argument("--only", nargs="+", default=(), help="names of models")
    parser.add_argument("--output", type=Path, default=RESULTS / "rtx-engines.json")
    arguments = parser.parse_args()
    if "rtx" not in installed_flavors():
        sys.exit("TensorRT-RTX is not installed; run pip install 'realtime-ssd[rtx]'")
    rows: list[BuiltEngine] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photos = write_photos(folder / "photos")
        for model, write in models(folder, arguments.data):
            if arguments.only and model not in arguments.only:
                continue
            for row in build_all(model, write(), folder, photos):
                rows.append(row)
                print(_line(row), flush=True)
    contents = {
        "machine": {"cpu": cpu_name(), "cores": cpu_count()},
        "tensorrt": library.version("rtx"),
        "compute_capability": CAPABILITY,
        "engines": [asdict(row) for row in rows],
    }
    arguments.output.write_text(json.dumps(contents, indent=1) + "\n")
    return int(any(row.error or row.mismatch for row in rows))


def _line(row: BuiltEngine) -> str:
    problem = row.error or row.mismatch
    return (
        f"{row.model:<32} {row.precision:<5} {row.batch:<5} {row.layers:>4} layers "
        f"{row.megabytes:>7.2f} MB {row.seconds:>6.2f} s  "
        f"{' '.join(f'{count} {name}' for name, count in row.convolutions.items())} {problem}"
    )


if __name__ == "__main__":
    sys.exit(main())
