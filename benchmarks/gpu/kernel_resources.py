"""What the CUDA kernels take of a GPU: registers, spilled registers, shared memory, code size.

    python -m benchmarks.gpu.kernel_resources [--architectures sm_75,sm_90] [--output FILE]

Needs nvcc and no GPU. The settings are those of three published models: other class counts and
activations make other code.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from realtime_ssd_engines.cuda.compile import FLAGS, nvcc_path, with_nvcc
from realtime_ssd_engines.cuda.kernel_params import Precision, detect_settings, preprocess_settings

from realtime_ssd.core.boxes import AnchorSpec
from realtime_ssd.core.errors import ModelError
from realtime_ssd.core.spec import Activation, Coding, InputSpec, ModelSpec

__all__ = ["ARCHITECTURES", "MODELS", "Resources", "measure", "read_report"]

ARCHITECTURES = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90")
RESULTS = Path(__file__).parents[1] / "results" / "kernel-resources.json"


@dataclass(frozen=True)
class Resources:
    """What one kernel takes.

    Attributes:
        kernel: Its name.
        architecture: Such as "sm_90".
        model: Whose settings it was compiled with.
        precision: Of the network's input and outputs.
        registers: Of a thread.
        shared: Bytes of static shared memory of a block.
        stack: Bytes of local memory of a thread.
        spill_stores: Bytes a thread spills.
        spill_loads: Bytes a thread reads back.
    """

    kernel: str
    architecture: str
    model: str
    precision: str
    registers: int
    shared: int
    stack: int
    spill_stores: int
    spill_loads: int


def _spec(name: str, side: int, classes: int, activation: Activation, coding: Coding) -> ModelSpec:
    labels = ("background", *(f"class {i}" for i in range(1, classes)))
    recipe = AnchorSpec(explicit="AAAAAAAAAAAAAIA/AACAPw==")
    picture = InputSpec(side, side)
    return ModelSpec(name, picture, recipe, labels, activation=activation, coding=coding)


MODELS = (
    _spec("ssd300_vgg16_voc", 300, 21, "softmax", "xywh"),
    _spec("ssd300_mobilenet_v1_coco", 300, 91, "sigmoid", "yxhw"),
    _spec("ssdlite320_coco", 320, 91, "softmax", "xywh"),
)
"""Default boxes are data and not part of the code, so one stands for all."""

_ENTRY = re.compile(
    r"Compiling entry function '(?P<kernel>\w+)' for '(?P<arch>sm_\d+)'.*?"
    r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, "
    r"(?P<loads>\d+) bytes spill loads.*?Used (?P<registers>\d+) registers(?P<rest>[^\n]*)",
    re.DOTALL,
)


def read_report(text: str, model: str, precision: str) -> list[Resources]:
    """Read what ptxas reports of every kernel."""
    found = []
    for hit in _ENTRY.finditer(text):
        shared = re.search(r"(\d+)(?:\+\d+)? bytes smem", hit["rest"])
        found.append(
            Resources(
                kernel=hit["kernel"],
                architecture=hit["arch"],
                model=model,
                precision=precision,
                registers=int(hit["registers"]),
                shared=int(shared[1]) if shared else 0,
                stack=int(hit["stack"]),
                spill_stores=int(hit["stores"]),
                spill_loads=int(hit["loads"]),
            )
        )
    return found


def measure(spec: ModelSpec, precision: Precision, architecture: str) -> list[Resources]:
    """Compile all kernels of a model for an architecture.

    Raises:
        ModelError: If nvcc refuses one.
    """
    found = []
    for name, settings in (
        ("detect", detect_settings(spec, precision, precision)),
        ("preprocess", preprocess_settings(spec.input, precision)),
    ):
        options = [
            *FLAGS,
            "-Xptxas",
            "-v",
            *(f"-D{key}={value}" for key, value in settings.items()),
        ]
        _, said = with_nvcc(name, architecture, options)
        found += read_report(said, spec.name, precision)
    return found


def main() -> int:
    """Measure all, print a table, write the record; 1 without nvcc."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--architectures", default=",".join(ARCHITECTURES))
    parser.add_argument("--output", type=Path, default=RESULTS)
    given = parser.parse_args()
    path = nvcc_path()
    if path is None:
        print("skipped: nvcc is not installed", file=sys.stderr)
        return 1
    rows: list[Resources] = []
    try:
        for architecture in given.architectures.split(","):
            for spec in MODELS:
                rows += measure(spec, "fp16", architecture)
    except ModelError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{'kernel':<16}{'GPU':<8}{'model':<26}{'registers':>9}{'shared':>8}{'spilled':>8}")
    for row in rows:
        spilled = row.spill_stores + row.spill_loads
        print(
            f"{row.kernel:<16}{row.architecture:<8}{row.model:<26}{row.registers:>9}"
            f"{row.shared:>8}{spilled:>8}"
        )
    record = {"compiler": _version(path), "kernels": [asdict(row) for row in rows]}
    given.output.parent.mkdir(exist_ok=True)
    given.output.write_text(json.dumps(record, indent=1) + "\n")
    return 0


def _version(nvcc: str) -> str:
    import subprocess

    said = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"release ([\d.]+)", said)
    return f"nvcc {found[1]}" if found else "nvcc"


if __name__ == "__main__":
    sys.exit(main())
