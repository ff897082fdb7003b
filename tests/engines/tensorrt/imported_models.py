"""Models of every importer, with random weights, for builds of engines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from realtime_ssd_training.importers import ImportOptions, import_model

from tests.training.importers.caffe_files import random_weights, vgg_definition, write_caffemodel
from tests.training.importers.reference_mobilenets import (
    Reference,
    images,
    qfgaohao_mb1,
    qfgaohao_mb2,
    torchvision_lite,
)
from tests.training.importers.reference_vgg16 import make_checkpoint
from tests.training.importers.tflite_builder import tiny_ssd

__all__ = ["IMPORTED", "import_random_model"]


def _vgg16(folder: Path, family: str) -> Path:
    torch.save(make_checkpoint(family), folder / "model.pth")
    return folder / "model.pth"


def _mobilenet(folder: Path, family: str) -> Path:
    function, size, eps, floor = {
        "torchvision": (torchvision_lite, 320, 1e-3, 0.2),
        "mb1": (qfgaohao_mb1, 300, 1e-5, 0.2),
        "mb2": (qfgaohao_mb2, 300, 1e-5, 0.5),
    }[family]
    net = Reference(eps, floor)
    with torch.no_grad():
        function(net, images(2, size, seed=1), 4)
    torch.save(net.weights, folder / "model.pth")
    return folder / "model.pth"


def _caffe(folder: Path, size: int) -> Path:
    definition = vgg_definition(size, 21, width=1 / 16)
    (folder / "deploy.prototxt").write_text(definition)
    write_caffemodel(folder / "net.caffemodel", random_weights(definition))
    return folder / "net.caffemodel"


def _tflite(folder: Path) -> Path:
    content = tiny_ssd("float32")
    (folder / "model.tflite").write_bytes(content)
    return folder / "model.tflite"


IMPORTED: dict[str, Callable[[Path], Path]] = {
    "torchvision-ssd300": lambda folder: _vgg16(folder, "torchvision"),
    "torchvision-ssdlite320": lambda folder: _mobilenet(folder, "torchvision"),
    "amdegroot-ssd300": lambda folder: _vgg16(folder, "amdegroot"),
    "lufficc-ssd300": lambda folder: _vgg16(folder, "lufficc"),
    "qfgaohao-vgg16-ssd": lambda folder: _vgg16(folder, "qfgaohao"),
    "qfgaohao-mb1-ssd": lambda folder: _mobilenet(folder, "mb1"),
    "qfgaohao-mb2-ssd-lite": lambda folder: _mobilenet(folder, "mb2"),
    "caffe-ssd300": lambda folder: _caffe(folder, 300),
    "tflite-float32": _tflite,
}
"""Functions that write the files of a model to a folder and return the main one, by name."""


def import_random_model(name: str, folder: Path) -> Path:
    """Write a model with random weights and import it.

    Args:
        name: One of `IMPORTED`.
        folder: Empty folder.

    Returns:
        The ONNX file.
    """
    source = IMPORTED[name](folder)
    prototxt = folder / "deploy.prototxt"
    options = ImportOptions(prototxt=prototxt if prototxt.exists() else None)
    output = folder / f"{name}.onnx"
    import_model(source, output, options)
    return output
