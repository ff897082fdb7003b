"""Resource use of the CUDA kernels: registers, spills, shared memory and instructions.

    python -m benchmarks.gpu.kernel_resources [--architectures sm_75,sm_90] [--output FILE]

Requires nvcc but no GPU; instructions are counted with nvdisasm (`pip install
nvidia-cuda-nvdisasm`). The settings are those of three published models, which differ in class
count and activation.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from realtime_ssd_engines.cuda.compile import FLAGS, compile_with_nvcc, nvcc_path
from realtime_ssd_engines.cuda.kernel_params import (
    PREPROCESS_ROWS,
    Precision,
    detect_settings,
    preprocess_settings,
)

from benchmarks.gpu.machine_code import PathCount, disassemble, longest_path, nvdisasm_path
from realtime_ssd.core.boxes import AnchorSpec
from realtime_ssd.core.errors import ModelError
from realtime_ssd.core.spec import Activation, Coding, InputSpec, ModelSpec

__all__ = [
    "ARCHITECTURES",
    "MODELS",
    "RESULTS",
    "Resources",
    "count_preprocessing",
    "measure",
    "parse_ptxas_report",
]

ARCHITECTURES = ("sm_75", "sm_80", "sm_86", "sm_87", "sm_89", "sm_90", "sm_120")
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
        instructions: Pre-processing: instructions per pixel by image format.
        loads: Pre-processing: load instructions of a warp per 32 pixels by image format.
        fp64: Pre-processing: instructions in double precision per pixel by image format.
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
    instructions: dict[str, float] = field(default_factory=dict)
    loads: dict[str, float] = field(default_factory=dict)
    fp64: dict[str, float] = field(default_factory=dict)


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
        _, output = _compile(name, architecture, settings)
        resources += parse_ptxas_report(output, spec.name, precision)
    counts = count_preprocessing(preprocess_settings(spec.input, precision), architecture)
    pixels = PREPROCESS_ROWS
    return [
        replace(
            row,
            instructions={name: count.instructions / pixels for name, count in counts.items()},
            loads={name: count.loads / pixels for name, count in counts.items()},
            fp64={name: count.fp64 / pixels for name, count in counts.items()},
        )
        if row.kernel == "ssd_preprocess"
        else row
        for row in resources
    ]


def _compile(name: str, architecture: str, settings: dict[str, str]) -> tuple[bytes, str]:
    definitions = [f"-D{key}={value}" for key, value in settings.items()]
    return compile_with_nvcc(name, architecture, [*FLAGS, "-Xptxas", "-v", *definitions])


def count_preprocessing(settings: dict[str, str], architecture: str) -> dict[str, PathCount]:
    """Count the instructions of a pre-processing thread; return nothing without nvdisasm.

    The longest path is that of NV12, if the kernel supports it.
    """
    program = nvdisasm_path()
    if program is None:
        return {}
    counts = {}
    for image_format, nv12 in (("bgr", "0"), ("nv12", "1")):
        cubin, _ = _compile("preprocess", architecture, {**settings, "NV12": nv12})
        counts[image_format] = longest_path(disassemble(program, cubin))
    return counts


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
    print(
        f"{'kernel':<16}{'GPU':<8}{'model':<26}{'registers':>9}{'shared':>8}{'spilled':>8}"
        "  instructions per pixel"
    )
    for row in rows:
        spilled = row.spill_stores + row.spill_loads
        print(
            f"{row.kernel:<16}{row.architecture:<8}{row.model:<26}{row.registers:>9}"
            f"{row.shared:>8}{spilled:>8}  "
            + ", ".join(f"{name} {count:g}" for name, count in row.instructions.items())
        )
    before = json.loads(RESULTS.read_text()).get("before", {}) if RESULTS.exists() else {}
    kernels = [asdict(row) for row in rows]
    record = {"compiler": _version(path), "before": before, "kernels": kernels}
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
