"""The commands `train`, `evaluate`, `export` and `import`."""

from __future__ import annotations

from realtime_ssd.cli.command import Command

__all__ = ["EVALUATE", "EXPORT", "IMPORT", "TRAIN"]

IMPORT = Command(
    "realtime_ssd_training.cli.import_:import_model", "Import an SSD of another project.", 20
)
TRAIN = Command("realtime_ssd_training.cli.train:train", "Train a model.", 60)
EVALUATE = Command(
    "realtime_ssd_training.cli.evaluate:evaluate", "Measure the accuracy of a model.", 61
)
EXPORT = Command("realtime_ssd_training.cli.export:export", "Export a trained model to ONNX.", 62)
