"""The engine cache: reading, damaged entries, failed writes and removal."""

from __future__ import annotations

import dataclasses
import json
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from realtime_ssd_engines.tensorrt.cache import (
    EngineCache,
    EngineKey,
    read_entry,
    runtime_cache_file,
)

from realtime_ssd.core.errors import ModelError

KEY = EngineKey("ssd/300", "ab" * 32, "fp16", 4, 2, "GPU", "9.0", "10.0", "")
PLAN = bytes(range(256)) * 40


def read(cache: EngineCache, key: EngineKey) -> bytes | None:
    entry = cache.find(key)
    return None if entry is None else entry.path.read_bytes()


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    return EngineCache(tmp_path / "engines")


def test_engines_are_read_back_with_their_metadata(cache: EngineCache) -> None:
    assert read(cache, KEY) is None
    path = cache.write(KEY, PLAN, {"build_seconds": 3.5})
    assert read(cache, KEY) == PLAN
    (entry,) = cache.entries()
    assert (entry.path, entry.key, entry.problem) == (path, KEY, "")
    assert entry.metadata["build_seconds"] == 3.5
    assert entry.metadata["bytes"] == len(PLAN)
    assert {file.suffix for file in cache.folder.iterdir()} == {".engine", ".json"}


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(EngineKey)])
def test_engines_of_other_keys_are_not_read(cache: EngineCache, field: str) -> None:
    value = getattr(KEY, field)
    changes: dict[str, Any] = {field: value + 1 if isinstance(value, int) else value + "x"}
    other = dataclasses.replace(KEY, **changes)
    cache.write(KEY, PLAN, {})
    assert cache.path(other) != cache.path(KEY)
    assert read(cache, other) is None


@pytest.mark.parametrize(("version", "flavor"), [("10.0", "tensorrt"), ("RTX 1.7", "rtx")])
def test_the_flavor_is_part_of_the_version(version: str, flavor: str) -> None:
    assert dataclasses.replace(KEY, tensorrt=version).flavor == flavor


def truncate(path: Path) -> None:
    path.write_bytes(PLAN[:-1])


def flip_byte(path: Path) -> None:
    path.write_bytes(PLAN[:-1] + b"\0")


def delete_metadata(path: Path) -> None:
    path.with_suffix(".json").unlink()


def damage_metadata(path: Path) -> None:
    path.with_suffix(".json").write_text('{"key": {"model"')


def replace_metadata(path: Path) -> None:
    path.with_suffix(".json").write_text("[1, 2]")


def change_metadata(path: Path) -> None:
    file = path.with_suffix(".json")
    contents = json.loads(file.read_text())
    contents["key"]["gpu"] = "another GPU"
    file.write_text(json.dumps(contents))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (truncate, "the file is damaged"),
        (flip_byte, "the file is damaged"),
        (delete_metadata, "its metadata file is missing or damaged"),
        (damage_metadata, "its metadata file is missing or damaged"),
        (replace_metadata, "its metadata file is missing or damaged"),
        (change_metadata, "its metadata belongs to another engine"),
    ],
)
def test_damaged_engines_are_ignored_with_a_warning(
    cache: EngineCache,
    damage: Callable[[Path], None],
    reason: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = cache.write(KEY, PLAN, {})
    damage(path)
    with caplog.at_level(logging.WARNING):
        assert read(cache, KEY) is None
    assert caplog.messages == [f"rebuilding the cached engine '{path}': {reason}"]
    cache.write(KEY, PLAN, {})
    assert read(cache, KEY) == PLAN


def test_an_unwritable_folder_raises_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    cache = EngineCache(tmp_path / "file" / "engines")
    message = rf"'{cache.folder}' is not writable \(Not a directory\).*REALTIME_SSD_ENGINES"
    with pytest.raises(ModelError, match=message):
        cache.write(KEY, PLAN, {})
    with pytest.raises(ModelError, match=message), cache.locked(KEY):
        pass


FULL_DISK = """
import resource, sys
from pathlib import Path
from realtime_ssd_engines.tensorrt.cache import EngineCache
from realtime_ssd.core.errors import ModelError
from tests.engines.tensorrt.test_cache import KEY, PLAN
cache = EngineCache(Path(sys.argv[1]))
cache.write(KEY, PLAN, {})
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    cache.write(KEY, PLAN[::-1], {})
except ModelError as error:
    print(error)
"""


def test_a_failed_write_leaves_the_old_engine_intact(cache: EngineCache) -> None:
    command = [sys.executable, "-c", FULL_DISK, str(cache.folder)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"'{cache.folder}' is not writable (File too large)" in result.stdout
    assert read(cache, KEY) == PLAN
    assert {file.suffix for file in cache.folder.iterdir()} == {".engine", ".json"}


def test_remove_deletes_all_files_of_an_engine(cache: EngineCache) -> None:
    with cache.locked(KEY):
        path = cache.write(KEY, PLAN, {}, reference=b"onnx")
    path.with_suffix(".refused.json").write_text("{}")
    runtime_cache_file(path).write_bytes(b"kernels")
    cache.remove(path)
    assert list(cache.folder.iterdir()) == []


def test_timing_caches_depend_on_gpu_and_tensorrt_only(cache: EngineCache) -> None:
    same = dataclasses.replace(KEY, model="other", precision="fp32")
    other = dataclasses.replace(KEY, tensorrt="11.0")
    assert cache.timing_cache(KEY) == cache.timing_cache(same) != cache.timing_cache(other)


def test_the_folder_can_be_set_by_environment_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REALTIME_SSD_ENGINES", str(tmp_path))
    assert EngineCache().folder == tmp_path
    assert read_entry(tmp_path / "missing.engine").key is None
