"""Models by name: the bundled one, those of the user, and official ones that can be fetched."""

from __future__ import annotations

import hashlib
import os
import tempfile
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from realtime_ssd.core.errors import ModelError, RealtimeSSDError, UsageError
from realtime_ssd.core.registry import load_plugin

__all__ = [
    "BUNDLED",
    "OFFICIAL",
    "Official",
    "download",
    "find_model",
    "folder",
    "local_models",
    "pull",
]

BUNDLED = Path(__file__).parent / "assets" / "street.onnx"
"""The model that comes with the program."""

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Official:
    """A pretrained model that its authors publish.

    Attributes:
        url: Where its authors keep it.
        sha256: Beginning of the file's SHA-256, as its authors write it into the file's name.
        about: What it knows.
    """

    url: str
    sha256: str
    about: str


_TORCH = "https://download.pytorch.org/models/"
OFFICIAL = {
    "ssd300_vgg16_coco": Official(
        _TORCH + "ssd300_vgg16_coco-b556d3b4.pth",
        "b556d3b4",
        "torchvision's SSD300 VGG16, 90 COCO classes, 136 MB",
    ),
}


def folder() -> Path:
    """Give the folder of the user's own models (`REALTIME_SSD_MODELS` moves it)."""
    from platformdirs import user_data_path

    given = os.environ.get("REALTIME_SSD_MODELS")
    return Path(given) if given else user_data_path("realtime-ssd") / "models"


def local_models() -> dict[str, Path]:
    """List the user's own models by name."""
    return {path.stem: path for path in sorted(folder().glob("*.onnx"))}


def find_model(name: str | None) -> tuple[Path, str]:
    """Find a model's file.

    Args:
        name: File, name of a model, or None for a pulled general model, else the bundled one.

    Returns:
        The ONNX file, and one line to tell the user where the choice needs a word.

    Raises:
        UsageError: If there is no such model.
    """
    own = local_models()
    if name is None:
        pulled = [key for key in OFFICIAL if key in own]
        if pulled:
            return own[pulled[0]], f"using model '{pulled[0]}'"
        return BUNDLED, (
            "using the bundled model, which knows cars, trucks, buses, people, cyclists and "
            "traffic lights of the built-in demo street; for real pictures run "
            f"'realtime-ssd models pull {next(iter(OFFICIAL))}' or give --model FILE.onnx"
        )
    path = Path(name).expanduser()
    if path.suffix == ".onnx" or path.is_file():
        if not path.is_file():
            raise UsageError(f"model file '{name}' does not exist")
        return path, ""
    if name == BUNDLED.stem:
        return BUNDLED, ""
    if name in own:
        return own[name], ""
    known = ", ".join([BUNDLED.stem, *own])
    hint = f"; get it with 'realtime-ssd models pull {name}'" if name in OFFICIAL else ""
    raise UsageError(f"there is no model '{name}' here; known are {known}{hint}")


def pull(name: str) -> Path:
    """Fetch an official model, check it and bring it into the program's form.

    Args:
        name: One of `OFFICIAL`.

    Returns:
        The ONNX file in `folder()`.

    Raises:
        UsageError: If there is no such model.
        RealtimeSSDError: If it cannot be fetched, or PyTorch is missing to read it.
        ModelError: If what came is not what its authors published.
    """
    if name not in OFFICIAL:
        raise UsageError(f"there is no official model '{name}'; known are {', '.join(OFFICIAL)}")
    importer = load_plugin("importers", "checkpoint")
    if importer.missing():
        raise RealtimeSSDError(
            f"reading '{name}' needs {', '.join(importer.missing())}; install it with "
            "pip install 'realtime-ssd[train]'"
        )
    output = folder() / f"{name}.onnx"
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / OFFICIAL[name].url.rsplit("/", 1)[1]
        official = OFFICIAL[name]
        download(official.url, official.sha256, file, "use 'realtime-ssd import'")
        importer.convert(file, output)
    return output


def download(url: str, sha256: str, file: Path, otherwise: str) -> None:
    """Fetch a file and check it.

    Args:
        url: Where it is, http or https.
        sha256: Beginning of its SHA-256 in hexadecimal digits.
        file: Where to put it; what is there is replaced.
        otherwise: What to do with the file after fetching it in another way, for the message.

    Raises:
        RealtimeSSDError: If it cannot be fetched.
        ModelError: If it is another file than was expected; it is thrown away.
    """
    digest = hashlib.sha256()
    fresh = file.with_name(f"{file.name}.{os.getpid()}.partial")
    try:
        with urllib.request.urlopen(url, timeout=30) as answer, fresh.open("wb") as out:  # noqa: S310 - callers give http addresses only
            while chunk := answer.read(_CHUNK):
                digest.update(chunk)
                out.write(chunk)
        if digest.hexdigest().startswith(sha256.lower()):
            os.replace(fresh, file)
            return
    except (OSError, HTTPException) as error:
        raise RealtimeSSDError(
            f"'{url}' cannot be fetched ({getattr(error, 'reason', None) or error}); check the "
            f"network, or fetch it elsewhere and {otherwise}"
        ) from None
    finally:
        fresh.unlink(missing_ok=True)
    raise ModelError(
        f"what came from '{url}' has sha256 {digest.hexdigest()[:16]}..., expected {sha256}...; it "
        "was thrown away"
    )
