"""Real data for the benchmarks: a folder named by `--data` or REALTIME_SSD_DATA."""

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
    """Clips, photos, weights and raw network outputs in one folder.

    Attributes:
        folder: Folder with `clips`, `weights`, `golden` and annotated datasets.
    """

    folder: Path

    def path(self, name: str) -> Path:
        """Return the path of a file or folder in it.

        Raises:
            SystemExit: If it does not exist.
        """
        path = self.folder / name
        if not path.exists():
            raise SystemExit(
                f"'{path}' does not exist; name the folder of real data with --data or {VARIABLE}"
            )
        return path

    def clips(self) -> list[Path]:
        """Return the clips for comparisons of whole loops."""
        return [self.path(f"clips/{name}") for name in CLIPS]

    def coco_model(self, folder: Path) -> Path:
        """Import the trained COCO MobileNet SSD into `folder` and return the ONNX file."""
        from realtime_ssd_training.importers import ImportOptions, import_model

        original = self.path("weights/ssd_mobilenet_v1_coco_onnx/ssd_mobilenet_v1_coco_300.onnx")
        imported = folder / "ssd_mobilenet_v1_coco.onnx"
        import_model(original, imported, ImportOptions())
        return imported

    def heads(self) -> dict[str, tuple[Floats, Floats]]:
        """Read stored outputs of that network.

        Returns:
            For each photo, scores (1917 × 91) and offsets (1917 × 4).
        """
        heads = {}
        for file in sorted(self.path("golden/onnx_heads").glob("*.npz")):
            with np.load(file) as arrays:
                heads[file.stem] = arrays["class_scores"][0], arrays["box_encodings"][0]
        return heads


def add_option(parser: argparse.ArgumentParser) -> None:
    """Add `--data`; its default is the variable's folder, else the sibling `shared/data`."""
    sibling = Path(__file__).resolve().parents[2] / "shared" / "data"
    parser.add_argument(
        "--data",
        type=lambda text: Data(Path(text)),
        default=Data(Path(os.environ.get(VARIABLE) or sibling)),
        help=f"folder of real clips, weights and heads (default: ${VARIABLE}, else {sibling.name})",
    )
