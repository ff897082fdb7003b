"""Cache of engines: keyed, locked, written atomically and verified when read.

An engine works with one model, precision, batch profile, GPU and TensorRT version only. Its key
consists of all of these; the driver is not part of it. A JSON file next to the engine holds the key
and the engine's sha256.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from realtime_ssd.core.errors import ModelError
from realtime_ssd.core.files import cache_folder, replace_file, sha256_of
from realtime_ssd.core.spec_decoder import (
    MAX_TEXT,
    FieldError,
    integer,
    number,
    parse_object,
    record,
    text,
)
from realtime_ssd_engines.requirements import Flavor

__all__ = [
    "CacheEntry",
    "EngineCache",
    "EngineKey",
    "read_entry",
    "reference_file",
    "runtime_cache_file",
]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EngineKey:
    """Everything an engine depends on.

    Attributes:
        model: Name of the model.
        model_sha256: Checksum of the ONNX file.
        precision: "fp32", "fp16" or "int8".
        max_batch: Largest batch.
        opt_batch: Batch size the engine is optimized for.
        gpu: Name of the GPU.
        capability: Compute capability, such as "9.0".
        tensorrt: Version of TensorRT, or "RTX " and the version of TensorRT-RTX.
        calibration: Fingerprint of the INT8 calibration images; "" for other precisions.
    """

    model: str
    model_sha256: str
    precision: str
    max_batch: int
    opt_batch: int
    gpu: str
    capability: str
    tensorrt: str
    calibration: str = ""

    @property
    def flavor(self) -> Flavor:
        """Flavor of TensorRT that built the engine."""
        return "rtx" if self.tensorrt.startswith("RTX ") else "tensorrt"

    @property
    def digest(self) -> str:
        """First 16 hexadecimal digits of the key's sha256."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:16]

    @property
    def file_name(self) -> str:
        """Name of the engine file."""
        model = "".join(c if c.isalnum() or c in "-_." else "-" for c in self.model)[:40]
        return f"{model}-{self.precision}-b{self.max_batch}-{self.digest}.engine"


_TEXT = text(1024)
_KEY = record(
    {
        "model": _TEXT,
        "model_sha256": _TEXT,
        "precision": _TEXT,
        "max_batch": integer(1, 65_536),
        "opt_batch": integer(1, 65_536),
        "gpu": _TEXT,
        "capability": _TEXT,
        "tensorrt": _TEXT,
        "calibration": _TEXT,
    }
)
"""The fields of `EngineKey` in a metadata file."""
_AGREEMENT = number(0, 1)


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """An engine file in the cache.

    Attributes:
        path: Engine file.
        key: What the engine was built for; None if the metadata file is missing or damaged.
        metadata: Other contents of the metadata file: size, build time, comparison report.
        problem: Why the engine cannot be used; "" if it can.
    """

    path: Path
    key: EngineKey | None
    metadata: dict[str, Any]
    problem: str = ""


class EngineCache:
    """A folder of engines.

    Args:
        folder: Folder; by default `REALTIME_SSD_ENGINES`, or one in the user's cache.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or cache_folder("engines")

    def path(self, key: EngineKey) -> Path:
        """Return the engine file of a key, whether or not it exists."""
        return self.folder / key.file_name

    def timing_cache(self, key: EngineKey) -> Path:
        """Return the timing cache file for the GPU and TensorRT version of a key."""
        fingerprint = f"{key.gpu} {key.capability} {key.tensorrt}"
        digest = hashlib.sha256(fingerprint.encode()).hexdigest()[:16]
        return self.folder / f"timing-{digest}.cache"

    @contextmanager
    def locked(self, key: EngineKey) -> Iterator[None]:
        """Hold the lock of a key, so that only one process builds its engine.

        Raises:
            ModelError: If the folder is not writable.
        """
        from filelock import FileLock

        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path(key).with_suffix(".lock"))
            lock.acquire()
        except OSError as error:
            raise _write_error(self.folder, error) from error
        try:
            yield
        finally:
            lock.release()

    def find(self, key: EngineKey, *, warn: bool = True) -> CacheEntry | None:
        """Return the engine of a key, or None if it is absent or, with a warning, damaged."""
        path = self.path(key)
        if not path.is_file():
            return None
        entry = read_entry(path)
        problem = entry.problem
        if not problem and entry.key != key:
            problem = "its metadata belongs to another engine"
        if problem:
            if warn:
                _log.warning("rebuilding the cached engine '%s': %s", path, problem)
            return None
        return entry

    def write(
        self,
        key: EngineKey,
        plan: bytes,
        metadata: dict[str, Any],
        path: Path | None = None,
        reference: bytes | None = None,
    ) -> Path:
        """Write an engine, then its metadata file, each atomically.

        Args:
            key: What the engine was built for.
            plan: Serialized engine.
            metadata: Further contents of the metadata file.
            path: File to write; by default the one of the key.
            reference: ONNX file to compare the engine with when it is first loaded.

        Raises:
            ModelError: If the folder is not writable; the message names it.
        """
        path = path or self.path(key)
        contents = {
            "key": asdict(key),
            "sha256": hashlib.sha256(plan).hexdigest(),
            "bytes": len(plan),
            "built": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            **metadata,
        }
        if reference is None:
            with suppress(OSError):  # the file belongs to an engine that is replaced
                reference_file(path).unlink()
        else:
            contents["reference_sha256"] = hashlib.sha256(reference).hexdigest()
            self.write_file(reference_file(path), reference)
        self.write_file(path, plan)
        self.write_file(path.with_suffix(".json"), json.dumps(contents, indent=1).encode())
        return path

    def write_file(self, path: Path, content: bytes) -> None:
        """Write a file atomically and create its folder.

        Raises:
            ModelError: If the folder is not writable.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, content)
        except OSError as error:
            raise _write_error(path.parent, error) from error

    def entries(self) -> list[CacheEntry]:
        """Return all engines in the folder, verified, sorted by name."""
        return [read_entry(path) for path in sorted(self.folder.glob("*.engine"))]

    def remove(self, path: Path) -> None:
        """Delete an engine with all files that belong to it."""
        for suffix in (".engine", ".json", ".lock", ".refused.json"):
            path.with_suffix(suffix).unlink(missing_ok=True)
        reference_file(path).unlink(missing_ok=True)
        runtime_cache_file(path).unlink(missing_ok=True)


def reference_file(engine: Path) -> Path:
    """Return the ONNX file next to an engine with which it is compared when it is first loaded."""
    return engine.with_suffix(".reference.onnx")


def runtime_cache_file(engine: Path) -> Path:
    """Return the file next to an engine with the kernels that TensorRT-RTX compiled for the GPU."""
    return engine.with_suffix(".runtime")


def _write_error(folder: Path, error: OSError) -> ModelError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    remedy = "free some space" if full else "change its permissions"
    return ModelError(
        f"folder '{folder}' is not writable ({error.strerror}); {remedy}, or set "
        "REALTIME_SSD_ENGINES to another folder for engines"
    )


def _check_metadata(contents: dict[str, Any]) -> None:
    """Check the types of optional contents that are used; `read_spec` checks the specification."""
    _TEXT("source", contents.get("source", ""))
    if "agreement" in contents:
        report = contents["agreement"]
        if not isinstance(report, dict):
            raise FieldError("field 'agreement' must be an object")
        _AGREEMENT("agreement.share", report.get("share"))


def read_entry(path: Path) -> CacheEntry:
    """Read the metadata file of an engine and verify the engine's checksum."""
    try:
        contents = parse_object(path.with_suffix(".json").read_text("utf-8"), 2 * MAX_TEXT)
        key = EngineKey(**_KEY("key", contents["key"]))
        checksum = contents["sha256"]
        _check_metadata(contents)
    except (OSError, ValueError, KeyError):
        return CacheEntry(path, None, {}, "its metadata file is missing or damaged")
    metadata = {name: value for name, value in contents.items() if name not in ("key", "sha256")}
    problem = "" if sha256_of(path) == checksum else "the file is damaged"
    return CacheEntry(path, key, metadata, problem)
