"""Names of the models that are timed; imports nothing."""

from __future__ import annotations

__all__ = ["NAMES", "TRAINED"]

TRAINED = "ssd_mobilenet_v1_coco"
NAMES = ("ssd300_vgg16", TRAINED, "ssdlite320_mobilenet_v3_large", "ssd512_vgg16")
