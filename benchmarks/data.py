"""The real data that comparisons run on: a folder given by `--data` or REALTIME_SSD_DATA."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["VARIABLE", "Data", "add_option"]

VARIABLE = "REALTIME_SSD_DATA"
CLIPS = ("solidWhiteRight.mp4", "carnd_vehicle_test_video.mp4")

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Data:
    """Clips, photos, weights and heads in one folder.

    Attributes:
        folder: With `clips`, `weights`, `golden` and the annotated sets in it.
    """

    folder: Path

    def path(self, name: str) -> Path:
        """Give a file or folder in it.

        Raises:
            SystemExit: If it is not there.
        """
        path = self.folder / name
        if not path.exists():
            raise SystemExit(
                f"'{path}' does not exist; give the folder of real data with --data or {VARIABLE}"
            )
        return path

    def clips(self) -> list[Path]:
        """Give the clips that loops are compared on."""
        return [self.path(f"clips/{name}") for name in CLIPS]

    def coco_model(self, place: Path) -> Path:
        """Import the trained MobileNet SSD into a folder and give the ready file."""
        from realtime_ssd_training.importers import ImportOptions, import_model

        raw = self.path("weights/ssd_mobilenet_v1_coco_onnx/ssd_mobilenet_v1_coco_300.onnx")
        ready = place / "ssd_mobilenet_v1_coco.onnx"
        import_model(raw, ready, ImportOptions())
        return ready

    def heads(self) -> dict[str, tuple[Floats, Floats]]:
        """Read the kept outputs of that network: scores 1917 × 91 and offsets 1917 × 4 a photo."""
        heads = {}
        for file in sorted(self.path("golden/onnx_heads").glob("*.npz")):
            with np.load(file) as kept:
                heads[file.stem] = kept["class_scores"][0], kept["box_encodings"][0]
        return heads


def add_option(parser: argparse.ArgumentParser) -> None:
    """Add `--data` to a command; without it the variable counts, then the sibling folder."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    given = os.environ.get(VARIABLE)
    parser.add_argument(
        "--data",
        type=lambda text: Data(Path(text)),
        default=Data(Path(given) if given else beside),
        help=f"folder of real clips, weights and heads (default: ${VARIABLE}, else {beside.name})",
    )
