"""The cache of engines: what it gives back, what it refuses, what it leaves behind."""

from __future__ import annotations

import dataclasses
import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
from realtime_ssd_engines.tensorrt.cache import EngineCache, EngineKey, examine

from realtime_ssd.core.errors import ModelError

KEY = EngineKey("ssd/300", "ab" * 32, "fp16", 4, 2, "GPU", "9.0", "10.0", "580.1", "")
PLAN = bytes(range(256)) * 40


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    return EngineCache(tmp_path / "engines")


def test_what_was_written_comes_back_with_its_facts(cache: EngineCache) -> None:
    assert cache.read(KEY) is None
    path = cache.write(KEY, PLAN, {"build_seconds": 3.5})
    assert cache.read(KEY) == PLAN
    (entry,) = cache.entries()
    assert (entry.path, entry.key, entry.problem) == (path, KEY, "")
    assert entry.facts["build_seconds"] == 3.5
    assert entry.facts["bytes"] == len(PLAN)
    assert {file.suffix for file in cache.folder.iterdir()} == {".engine", ".json"}


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(EngineKey)])
def test_every_part_of_the_key_counts(cache: EngineCache, field: str) -> None:
    old = getattr(KEY, field)
    other = dataclasses.replace(KEY, **{field: old + 1 if isinstance(old, int) else old + "x"})
    cache.write(KEY, PLAN, {})
    assert cache.path(other) != cache.path(KEY)
    assert cache.read(other) is None


def cut(path: Path) -> None:
    path.write_bytes(PLAN[:-1])


def flip(path: Path) -> None:
    path.write_bytes(PLAN[:-1] + b"\0")


def lose_note(path: Path) -> None:
    path.with_suffix(".json").unlink()


def break_note(path: Path) -> None:
    path.with_suffix(".json").write_text('{"key": {"model"')


def list_note(path: Path) -> None:
    path.with_suffix(".json").write_text("[1, 2]")


def foreign_note(path: Path) -> None:
    note = path.with_suffix(".json")
    about = json.loads(note.read_text())
    about["key"]["gpu"] = "another GPU"
    note.write_text(json.dumps(about))


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (cut, "the file is damaged"),
        (flip, "the file is damaged"),
        (lose_note, "its side-car is missing or damaged"),
        (break_note, "its side-car is missing or damaged"),
        (list_note, "its side-car is missing or damaged"),
        (foreign_note, "it belongs to something else"),
    ],
)
def test_damaged_and_foreign_engines_are_left_aside_with_a_warning(
    cache: EngineCache, harm: object, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = cache.write(KEY, PLAN, {})
    harm(path)  # type: ignore[operator]
    with caplog.at_level(logging.WARNING):
        assert cache.read(KEY) is None
    assert caplog.messages == [f"the cached engine '{path}' is built again: {reason}"]
    cache.write(KEY, PLAN, {})
    assert cache.read(KEY) == PLAN


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    cache = EngineCache(tmp_path / "file" / "engines")
    message = rf"'{cache.folder}' cannot be written \(Not a directory\).*REALTIME_SSD_ENGINES"
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


def test_a_write_that_fails_half_way_leaves_the_old_engine(cache: EngineCache) -> None:
    command = [sys.executable, "-c", FULL_DISK, str(cache.folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"'{cache.folder}' cannot be written (File too large)" in done.stdout
    assert cache.read(KEY) == PLAN
    assert {file.suffix for file in cache.folder.iterdir()} == {".engine", ".json"}


def test_removing_takes_all_that_belongs_to_an_engine(cache: EngineCache) -> None:
    with cache.locked(KEY):
        path = cache.write(KEY, PLAN, {})
    path.with_suffix(".refused.json").write_text("{}")
    cache.remove(path)
    assert list(cache.folder.iterdir()) == []


def test_timings_are_kept_by_gpu_and_tensorrt(cache: EngineCache) -> None:
    same = dataclasses.replace(KEY, model="other", precision="fp32")
    other = dataclasses.replace(KEY, tensorrt="11.0")
    assert cache.timing_cache(KEY) == cache.timing_cache(same) != cache.timing_cache(other)


def test_the_folder_can_be_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REALTIME_SSD_ENGINES", str(tmp_path))
    assert EngineCache().folder == tmp_path
    assert examine(tmp_path / "nothing.engine").key is None
