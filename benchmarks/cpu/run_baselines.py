"""Run this project and its baselines in turn, on the same frames, after comparing their detections.

`python -m benchmarks.cpu.run_baselines [--data FOLDER]` creates a virtual environment with
PyTorch's default build, torchvision and OpenVINO (`--venv`, some gigabytes, kept for later runs)
and measures all contenders in it. Where it cannot be created, the result file states why their rows
are missing. `--only loops,nms,ssdlite,annotate` selects parts.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.data import Data, add_option
from benchmarks.result_file import write_result

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / ".venv" / "baselines"
PACKAGES = ("torchvision", "openvino", "safetensors", "onnxscript", "matplotlib", "supervision")
SCORE_THRESHOLDS = (0.3, 0.1)
REPEATS_PER_ROUND = 5  # of decode + NMS, which takes a few milliseconds for all heads


def loops(data: Data, folder: Path, rounds: int) -> dict[str, Any]:
    """Measure video file to detections: OpenCV DNN, ONNX Runtime and OpenVINO loops."""
    from benchmarks.cpu.video_baselines import measure

    model = data.coco_model(folder)
    return {clip.name: measure(model, clip, rounds) for clip in data.clips()}


def nms(data: Data, folder: Path, rounds: int) -> dict[str, Any]:
    """Measure heads to detections: NMS of torchvision, supervision and OpenCV."""
    from benchmarks.cpu.nms_baselines import measure, read_heads, widen_to_ssd300
    from realtime_ssd.core.spec import read_spec

    model = data.coco_model(folder)
    spec = read_spec(model)
    coco_heads = read_heads(model, str(data.clips()[0]))
    results = {}
    for heads, head_spec in ((coco_heads, spec), widen_to_ssd300(coco_heads, spec)):
        for threshold in SCORE_THRESHOLDS:
            name = f"{head_spec.num_boxes} x {head_spec.num_classes} above {threshold:g}"
            results[name] = measure(heads, head_spec, threshold, REPEATS_PER_ROUND * rounds)
    return results


def ssdlite(data: Data, folder: Path, rounds: int) -> dict[str, Any]:
    """Measure the same ssdlite320 weights in torchvision and in this project."""
    from benchmarks.cpu.ssdlite_baseline import measure

    return measure(data.clips()[0], folder, rounds)


def annotate(data: Data, folder: Path, rounds: int) -> dict[str, Any]:
    """Measure video file to annotated file: cv2.VideoCapture + VideoWriter."""
    from benchmarks.cpu.annotate_baseline import measure

    model = data.coco_model(folder)
    clips = [data.clips()[0], data.path("clips/nasa_13013.mp4")]
    return {clip.name: measure(model, clip, folder, rounds) for clip in clips}


PARTS: dict[str, Callable[[Data, Path, int], dict[str, Any]]] = {
    "loops": loops,
    "nms": nms,
    "ssdlite": ssdlite,
    "annotate": annotate,
}


def prepare_venv(folder: Path) -> tuple[Path | None, str]:
    """Create the virtual environment of the baselines unless it exists.

    Returns:
        Its Python, or None and the reason why it could not be created.
    """
    python = folder / "bin" / "python"
    if (folder / "ready").exists():
        return python, ""
    # PyPI's torchvision needs PyPI's PyTorch, not a CPU build from another index.
    environment = {name: value for name, value in os.environ.items() if name != "PIP_FIND_LINKS"}
    for command in (
        [sys.executable, "-m", "venv", str(folder)],
        [str(python), "-m", "pip", "install", "-q", "-e", f"{ROOT}[train]", *PACKAGES],
    ):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
            return None, lines[-1][:200]
    (folder / "ready").touch()
    return python, ""


def run_parts(args: argparse.Namespace) -> int:
    """Measure the selected parts, each written when it is complete.

    Returns:
        The number of parts that failed.
    """
    failures = 0
    for name in args.only.split(","):
        print(f"{name} ...", file=sys.stderr, flush=True)
        try:
            with tempfile.TemporaryDirectory() as folder:
                values = PARTS[name](args.data, Path(folder), args.rounds)
        except ImportError as error:
            values = {"skipped": f"{error.name} is not installed"}
        except Exception:
            traceback.print_exc()
            failures += 1
            continue
        print(name, values)
        print(write_result(name, values, args.json))
    return failures


def main() -> None:
    """Run in the environment of the baselines, or in this one where that cannot be created."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_option(parser)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default=",".join(PARTS), help="parts, separated by commas")
    parser.add_argument("--venv", type=Path, default=VENV)
    parser.add_argument("--here", action="store_true", help="use this environment as it is")
    parser.add_argument("--json", type=Path, help="result file")
    args = parser.parse_args()
    unknown = [name for name in args.only.split(",") if name not in PARTS]
    if unknown:
        parser.error(f"unknown part '{unknown[0]}'; choose from {', '.join(PARTS)}")
    if args.here:
        sys.exit(run_parts(args))
    python, problem = prepare_venv(args.venv)
    if python is None:
        print(f"running without torchvision and OpenVINO: {problem}", file=sys.stderr)
        sys.exit(run_parts(args))
    command = [str(python), "-m", "benchmarks.cpu.run_baselines", "--here", *sys.argv[1:]]
    sys.exit(subprocess.run(command, check=False, cwd=ROOT).returncode)


if __name__ == "__main__":
    main()
