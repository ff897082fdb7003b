"""The commands `train`, `evaluate`, `export`, `import` and `data`."""

from __future__ import annotations

from realtime_ssd.cli.command import Command

__all__ = ["DATA", "EVALUATE", "EXPORT", "IMPORT", "TRAIN"]

IMPORT = Command(
    "realtime_ssd_training.cli.import_:import_model",
    "Import an SSD of another project.",
    20,
    "realtime-ssd import detect.tflite --output coco.onnx",
)
TRAIN = Command(
    "realtime_ssd_training.cli.train:train",
    "Train a model.",
    60,
    "realtime-ssd train custom --data yolo:cars --output runs/cars",
)
EVALUATE = Command(
    "realtime_ssd_training.cli.evaluate:evaluate",
    "Measure the accuracy of a model.",
    61,
    "realtime-ssd evaluate street --data demo:900-909",
)
EXPORT = Command(
    "realtime_ssd_training.cli.export:export",
    "Export a trained model to ONNX.",
    62,
    "realtime-ssd export runs/cars/best.safetensors --output cars.onnx",
)
DATA = Command(
    "realtime_ssd_training.cli.data:app", "Check a dataset, or convert it to another format.", 63
)
