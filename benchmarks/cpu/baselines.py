"""The program against its peers, side by side, on the same frames, with the same answers.

`python -m benchmarks.cpu.baselines [--data FOLDER]` makes a virtual environment with PyTorch's default
build, torchvision and OpenVINO (`--venv`, made once, some gigabytes) and runs in it, so that all
contenders take turns on one machine in one run. Where it cannot be made, their rows say why they
are missing. The parts can be run alone: `--only loops,nms,ssdlite,annotate`.
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
from benchmarks.machine import write

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / ".venv" / "peers"
PACKAGES = ("torchvision", "openvino", "safetensors", "onnxscript", "matplotlib")
SCORES = (0.3, 0.1)
PASSES = 5  # over all heads a round: one takes a few milliseconds


def loops(data: Data, place: Path, rounds: int) -> dict[str, Any]:
    """File to detections: OpenCV DNN, ONNX Runtime and OpenVINO loops."""
    from benchmarks.cpu.video_baselines import measure

    model = data.coco_model(place)
    return {clip.name: measure(model, clip, rounds) for clip in data.clips()}


def nms(data: Data, place: Path, rounds: int) -> dict[str, Any]:
    """Heads to detections: torchvision's, supervision's and OpenCV's NMS."""
    from benchmarks.cpu.nms_baselines import heads_of, measure, widened
    from realtime_ssd.core.spec import read_spec

    model = data.coco_model(place)
    spec = read_spec(model)
    heads = heads_of(model, str(data.clips()[0]))
    found = {}
    for given, contract in ((heads, spec), widened(heads, spec)):
        for score in SCORES:
            name = f"{contract.num_boxes} x {contract.num_classes} above {score:g}"
            found[name] = measure(given, contract, score, PASSES * rounds)
    return found


def ssdlite(data: Data, place: Path, rounds: int) -> dict[str, Any]:
    """The same ssdlite320 weights through torchvision's path and through ours."""
    from benchmarks.cpu.ssdlite_baseline import measure

    return measure(data.clips()[0], place, rounds)


def annotate(data: Data, place: Path, rounds: int) -> dict[str, Any]:
    """File to annotated file: cv2.VideoCapture + VideoWriter."""
    from benchmarks.cpu.annotate_baseline import measure

    model = data.coco_model(place)
    clips = [data.clips()[0], data.path("clips/nasa_13013.mp4")]
    return {clip.name: measure(model, clip, place, rounds) for clip in clips}


PARTS: dict[str, Callable[[Data, Path, int], dict[str, Any]]] = {
    "loops": loops,
    "nms": nms,
    "ssdlite": ssdlite,
    "annotate": annotate,
}


def prepare(venv: Path) -> tuple[Path | None, str]:
    """Make the environment of the peers if it is not there.

    Returns:
        Its Python, or None and the reason.
    """
    python = venv / "bin" / "python"
    if (venv / "ready").exists():
        return python, ""
    # PyPI's torchvision fits PyPI's PyTorch only, not a CPU build from elsewhere.
    environment = {name: value for name, value in os.environ.items() if name != "PIP_FIND_LINKS"}
    for command in (
        [sys.executable, "-m", "venv", str(venv)],
        [str(python), "-m", "pip", "install", "-q", "-e", f"{ROOT}[train]", *PACKAGES],
    ):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
            return None, lines[-1][:200]
    (venv / "ready").touch()
    return python, ""


def run_here(words: argparse.Namespace) -> int:
    """Measure the parts asked for, each written as soon as it is done; the number that failed."""
    failed = 0
    for name in words.only.split(","):
        print(f"{name} ...", file=sys.stderr, flush=True)
        try:
            with tempfile.TemporaryDirectory() as place:
                values = PARTS[name](words.data, Path(place), words.rounds)
        except ImportError as error:
            values = {"skipped": f"{error.name} is not installed"}
        except Exception:
            traceback.print_exc()
            failed += 1
            continue
        print(name, values)
        print(write(name, values, words.json))
    return failed


def main() -> None:
    """Run in the peers' environment, or here without it."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_option(parser)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default=",".join(PARTS), help="parts, by comma")
    parser.add_argument("--venv", type=Path, default=VENV)
    parser.add_argument("--here", action="store_true", help="use this environment as it is")
    parser.add_argument("--json", type=Path)
    words = parser.parse_args()
    unknown = [name for name in words.only.split(",") if name not in PARTS]
    if unknown:
        parser.error(f"there is no part '{unknown[0]}'; choose from {', '.join(PARTS)}")
    if words.here:
        sys.exit(run_here(words))
    python, problem = prepare(words.venv)
    if python is None:
        print(f"without torchvision and OpenVINO: {problem}", file=sys.stderr)
        sys.exit(run_here(words))
    command = [str(python), "-m", "benchmarks.cpu.baselines", "--here", *sys.argv[1:]]
    sys.exit(subprocess.run(command, check=False, cwd=ROOT).returncode)


if __name__ == "__main__":
    main()
