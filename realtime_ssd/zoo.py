"""Models by name: the bundled one, the user's own, and official ones that can be pulled."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from realtime_ssd.core.downloads import CHECKSUMS, download
from realtime_ssd.core.errors import RealtimeSSDError, UsageError
from realtime_ssd.core.files import data_folder, make_folder
from realtime_ssd.core.registry import load_plugin

__all__ = ["BUNDLED", "OFFICIAL", "OfficialModel", "find_model", "local_models", "pull"]

BUNDLED = Path(__file__).parent / "assets" / "street.onnx"
"""The model that is part of the package."""


@dataclass(frozen=True, slots=True)
class OfficialModel:
    """A pretrained model published by its authors.

    Attributes:
        url: Address of the file.
        sha256: SHA-256 of the file, as far as its authors publish it: all 64 digits, or the first
            ones, which are part of the file name.
        about: One line about the model, for users.
    """

    url: str
    sha256: str
    about: str


OFFICIAL = {
    "ssd300_vgg16_coco": OfficialModel(
        "https://download.pytorch.org/models/ssd300_vgg16_coco-b556d3b4.pth",
        "b556d3b4",
        "torchvision's SSD300 VGG16, 90 COCO classes, 136 MB",
    ),
}


def local_models() -> dict[str, Path]:
    """Return the ONNX files in the user's folder of models by name."""
    return {path.stem: path for path in sorted(data_folder("models").glob("*.onnx"))}


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
    path = Path(name).expanduser()
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


def pull(name: str) -> Path:
    """Download an official model, verify it and convert it to ONNX.

    Args:
        name: One of `OFFICIAL`.

    Returns:
        The ONNX file in the user's folder of models.

    Raises:
        UsageError: If there is no such model.
        RealtimeSSDError: If packages for the conversion are missing, which is checked first, or
            the download fails.
        ModelError: If the downloaded file is not the published one.
    """
    if name not in OFFICIAL:
        raise UsageError(f"there is no official model '{name}'; choose from {', '.join(OFFICIAL)}")
    importer = load_plugin("importers", "checkpoint")
    if importer.missing():
        raise RealtimeSSDError(
            f"reading '{name}' needs {', '.join(importer.missing())}; install it with "
            "pip install 'realtime-ssd[train]'"
        )
    official = OFFICIAL[name]
    output = data_folder("models") / f"{name}.onnx"
    make_folder(output.parent)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / official.url.rsplit("/", 1)[1]
        checksums = output.parent / CHECKSUMS
        hint = "use 'realtime-ssd import'"
        download(official.url, official.sha256, file, hint=hint, checksums=checksums)
        importer.convert(file, output)
    return output
