"""Where finished engines are kept: keyed, locked, written atomically, checked when read.

An engine fits one model, precision, batch profile, GPU, TensorRT and driver. All of these make its
key; the side-car beside it says them in clear, with the engine's own sha256.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from realtime_ssd.core.errors import ModelError
from realtime_ssd.core.files import replace_file, sha256_of

__all__ = ["EngineCache", "EngineKey", "Entry", "default_folder"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EngineKey:
    """Everything an engine depends on.

    Attributes:
        model: Name of the model.
        model_sha256: Of the ONNX file.
        precision: "fp32", "fp16" or "int8".
        max_batch: Largest batch.
        opt_batch: Batch it is tuned for.
        gpu: Name of the GPU.
        capability: Compute capability, such as "9.0".
        tensorrt: Version of TensorRT.
        driver: Release of the driver.
        calibration: What INT8 was calibrated with; "" otherwise.
    """

    model: str
    model_sha256: str
    precision: str
    max_batch: int
    opt_batch: int
    gpu: str
    capability: str
    tensorrt: str
    driver: str
    calibration: str = ""

    @property
    def digest(self) -> str:
        """16 hexadecimal digits that stand for the key."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:16]

    @property
    def file_name(self) -> str:
        """Name of the engine's file."""
        plain = "".join(c if c.isalnum() or c in "-_." else "-" for c in self.model)[:40]
        return f"{plain}-{self.precision}-b{self.max_batch}-{self.digest}.engine"


@dataclass(frozen=True, slots=True)
class Entry:
    """An engine found in the cache.

    Attributes:
        path: Its file.
        key: What it was built for; None if the side-car is missing or damaged.
        facts: The rest of the side-car: size, build time, verification.
        problem: Why it cannot be used; "" if it can.
    """

    path: Path
    key: EngineKey | None
    facts: dict[str, Any]
    problem: str = ""


def default_folder() -> Path:
    """Give the user's own folder of engines (`REALTIME_SSD_ENGINES` moves it)."""
    if given := os.environ.get("REALTIME_SSD_ENGINES"):
        return Path(given)
    from platformdirs import user_cache_path

    return user_cache_path("realtime-ssd") / "engines"


class EngineCache:
    """A folder of engines.

    Args:
        folder: Where; the user's own cache if None.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or default_folder()

    def path(self, key: EngineKey) -> Path:
        """Tell where the engine of a key is, or would be."""
        return self.folder / key.file_name

    def timing_cache(self, key: EngineKey) -> Path:
        """Name the file with the timings of earlier builds on the same GPU and TensorRT."""
        told = f"{key.gpu} {key.capability} {key.tensorrt}"
        return self.folder / f"timing-{hashlib.sha256(told.encode()).hexdigest()[:16]}.cache"

    @contextmanager
    def locked(self, key: EngineKey) -> Iterator[None]:
        """Keep other processes from building the same engine meanwhile.

        Raises:
            ModelError: If the folder cannot be written.
        """
        from filelock import FileLock

        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path(key).with_suffix(".lock"))
            lock.acquire()
        except OSError as error:
            raise _unwritable(self.folder, error) from error
        try:
            yield
        finally:
            lock.release()

    def read(self, key: EngineKey, *, warn: bool = True) -> bytes | None:
        """Give the engine of a key; None, with a warning, if it is damaged, or there is none."""
        path = self.path(key)
        if not path.is_file():
            return None
        entry = examine(path)
        if not entry.problem and entry.key != key:
            entry = Entry(path, entry.key, {}, "it belongs to something else")
        if entry.problem:
            if warn:
                _log.warning("the cached engine '%s' is built again: %s", path, entry.problem)
            return None
        return path.read_bytes()

    def write(
        self, key: EngineKey, plan: bytes, facts: dict[str, Any], path: Path | None = None
    ) -> Path:
        """Keep an engine: first the engine, then its side-car, each in one step.

        Args:
            key: What it is for.
            plan: The engine.
            facts: What else is worth knowing.
            path: File to write; the one of the key if None.

        Raises:
            ModelError: If the folder cannot be written; it names the folder.
        """
        path = path or self.path(key)
        about = {
            "key": asdict(key),
            "sha256": hashlib.sha256(plan).hexdigest(),
            "bytes": len(plan),
            "built": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            **facts,
        }
        self._put(path, plan)
        self._put(path.with_suffix(".json"), json.dumps(about, indent=1).encode())
        return path

    def write_file(self, path: Path, content: bytes) -> None:
        """Write a file in one step; nothing if there is no content.

        Raises:
            ModelError: If its folder cannot be written.
        """
        if content:
            self._put(path, content)

    def entries(self) -> list[Entry]:
        """List what is kept, checked, by name."""
        return [examine(path) for path in sorted(self.folder.glob("*.engine"))]

    def remove(self, path: Path) -> None:
        """Delete an engine with its side-car and lock."""
        for suffix in (".engine", ".json", ".lock", ".refused.json"):
            path.with_suffix(suffix).unlink(missing_ok=True)

    def _put(self, path: Path, content: bytes) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, content)
        except OSError as error:
            raise _unwritable(path.parent, error) from error


def _unwritable(folder: Path, error: OSError) -> ModelError:
    return ModelError(
        f"the folder '{folder}' cannot be written ({error.strerror}); make it writable, or "
        "choose another one (the variable REALTIME_SSD_ENGINES moves all engines)"
    )


def examine(path: Path) -> Entry:
    """Check an engine file against its side-car."""
    try:
        about = json.loads(path.with_suffix(".json").read_text())
        known = {field.name for field in fields(EngineKey)}
        key = EngineKey(**{name: about["key"][name] for name in known})
        expected = about["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return Entry(path, None, {}, "its side-car is missing or damaged")
    facts = {name: value for name, value in about.items() if name not in ("key", "sha256")}
    problem = "" if sha256_of(path) == expected else "the file is damaged"
    return Entry(path, key, facts, problem)
