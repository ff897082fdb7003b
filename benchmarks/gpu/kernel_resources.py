"""Resource use of the CUDA kernels: registers, spills and shared memory.

    python -m benchmarks.gpu.kernel_resources [--architectures sm_75,sm_90] [--output FILE]

Requires nvcc but no GPU. The settings are those of three published models, which differ in class
count and activation.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from realtime_ssd_engines.cuda.compile import FLAGS, compile_with_nvcc, nvcc_path
from realtime_ssd_engines.cuda.kernel_params import Precision, detect_settings, preprocess_settings

from realtime_ssd.core.boxes import AnchorSpec
from realtime_ssd.core.errors import ModelError
from realtime_ssd.core.spec import Activation, Coding, InputSpec, ModelSpec

__all__ = ["ARCHITECTURES", "MODELS", "Resources", "measure", "parse_ptxas_report"]

ARCHITECTURES = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90")
RESULTS = Path(__file__).parents[1] / "results" / "kernel-resources.json"


@dataclass(frozen=True)
class Resources:
    """Resource use of one kernel.

    Attributes:
        kernel: Name of the kernel.
        architecture: Such as "sm_90".
        model: Model whose settings it was compiled with.
        precision: Precision of the network's input and outputs.
        registers: Registers per thread.
        shared: Bytes of static shared memory per block.
        stack: Bytes of local memory per thread.
        spill_stores: Bytes of spill stores per thread.
        spill_loads: Bytes of spill loads per thread.
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
    anchors = AnchorSpec(explicit="AAAAAAAAAAAAAIA/AACAPw==")
    size = InputSpec(side, side)
    return ModelSpec(name, size, anchors, labels, activation=activation, coding=coding)


MODELS = (
    _spec("ssd300_vgg16_voc", 300, 21, "softmax", "xywh"),
    _spec("ssd300_mobilenet_v1_coco", 300, 91, "sigmoid", "yxhw"),
    _spec("ssdlite320_coco", 320, 91, "softmax", "xywh"),
)
"""Default boxes are data and do not affect the code, so one is enough."""

_ENTRY = re.compile(
    r"Compiling entry function '(?P<kernel>\w+)' for '(?P<arch>sm_\d+)'.*?"
    r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, "
    r"(?P<loads>\d+) bytes spill loads.*?Used (?P<registers>\d+) registers(?P<rest>[^\n]*)",
    re.DOTALL,
)


def parse_ptxas_report(text: str, model: str, precision: str) -> list[Resources]:
    """Parse the resource use of all kernels from the output of ptxas."""
    resources = []
    for entry in _ENTRY.finditer(text):
        shared = re.search(r"(\d+)(?:\+\d+)? bytes smem", entry["rest"])
        resources.append(
            Resources(
                kernel=entry["kernel"],
                architecture=entry["arch"],
                model=model,
                precision=precision,
                registers=int(entry["registers"]),
                shared=int(shared[1]) if shared else 0,
                stack=int(entry["stack"]),
                spill_stores=int(entry["stores"]),
                spill_loads=int(entry["loads"]),
            )
        )
    return resources


def measure(spec: ModelSpec, precision: Precision, architecture: str) -> list[Resources]:
    """Compile all kernels of a model for an architecture.

    Raises:
        ModelError: If a compilation fails.
    """
    resources = []
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
        _, output = compile_with_nvcc(name, architecture, options)
        resources += parse_ptxas_report(output, spec.name, precision)
    return resources


def main() -> int:
    """Measure all kernels, print a table and write the results; return 1 without nvcc."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--architectures", default=",".join(ARCHITECTURES))
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    path = nvcc_path()
    if path is None:
        print("skipped: nvcc is not installed", file=sys.stderr)
        return 1
    rows: list[Resources] = []
    try:
        for architecture in options.architectures.split(","):
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
    options.output.parent.mkdir(exist_ok=True)
    options.output.write_text(json.dumps(record, indent=1) + "\n")
    return 0


def _version(nvcc: str) -> str:
    import subprocess

    output = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout
    release = re.search(r"release ([\d.]+)", output)
    return f"nvcc {release[1]}" if release else "nvcc"


if __name__ == "__main__":
    sys.exit(main())
