"""Names of the formats that are fuzzed."""

from __future__ import annotations

__all__ = ["DATASETS", "IMAGES", "KINDS", "MODELS", "SETTINGS", "VIDEOS"]

VIDEOS = ("mp4", "mkv", "avi", "ts", "webm", "mov")
IMAGES = ("jpg", "png", "webp", "bmp", "tiff")
MODELS = ("onnx", "safetensors")
SETTINGS = ("toml", "spec", "anchors", "benchmark")
DATASETS = ("coco", "voc", "yolo", "yaml")
KINDS = (*VIDEOS, *IMAGES, *MODELS, *SETTINGS, *DATASETS)
