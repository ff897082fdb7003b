"""Limits of the system: one sentence each, and what was written can be read."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from realtime_ssd.core.errors import ModelError
from tests.cli.program import ENVIRONMENT, run
from tests.tiny import tiny_model
from tests.videos import readable

DEMO = ("--source", "demo:320x180,frames=90", "--backend", "onnxruntime", "--overwrite")


def run_limited(
    limits: dict[int, int], *arguments: str, prefix: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run the program with limits of resources, and check that it prints no traceback."""

    def limit() -> None:
        for number, value in limits.items():
            resource.setrlimit(number, (value, value))

    done = subprocess.run(
        [*prefix, sys.executable, "-m", "realtime_ssd", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=ENVIRONMENT,
        preexec_fn=limit,
    )
    assert "Traceback" not in done.stderr
    assert "unexpected" not in done.stderr
    return done


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 5 MB, of which 300 kB are free."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=5m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("this user cannot mount a file system")
    try:
        (folder / "fill").write_bytes(bytes(4_900_000))
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.slow
def test_open_files(tiny: Path, tmp_path: Path) -> None:
    sources = [part for k in range(6) for part in ("--source", f"demo:64x64,seed={k},frames=3")]
    limits = {resource.RLIMIT_NOFILE: 32}
    outputs = ("--output", f"{tmp_path}/all", "--json", f"{tmp_path}/all.jsonl")
    done = run_limited(limits, *sources, "--model", str(tiny), *outputs)
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "all.jsonl").read_text().splitlines()) == 18
    done = run_limited({resource.RLIMIT_NOFILE: 9}, *sources, "--model", str(tiny), *outputs)
    assert "open" in done.stderr.splitlines()[-1]


@pytest.mark.slow
def test_memory(tiny: Path, tmp_path: Path) -> None:
    output = ("--model", str(tiny), "--output", f"{tmp_path}/v.mp4")
    done = run_limited({resource.RLIMIT_AS: 3 * 2**30}, *DEMO, *output)
    assert done.returncode == 0, done.stderr
    huge = ("--source", "demo:14000x14000,frames=1", "--backend", "onnxruntime", "--overwrite")
    done = run_limited({resource.RLIMIT_AS: 3 * 2**30}, *huge, *output)
    assert done.returncode == 1
    assert "there is not enough memory" in done.stderr.splitlines()[-1]


@pytest.mark.slow
def test_threads(tiny: Path, tmp_path: Path) -> None:
    """Root has no limit of threads, so the program runs as another user."""
    user = ("setpriv", "--reuid=65534", "--clear-groups", "--inh-caps=+dac_override",
            "--ambient-caps=+dac_override", "prlimit", "--nproc=4")  # fmt: skip
    if subprocess.run([*user, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this user cannot start a program as another user")
    done = run_limited({}, *DEMO, "--model", str(tiny), "--json", "-", prefix=user)
    assert done.returncode == 1
    assert "no further thread or process can be started" in done.stderr.splitlines()[-1]


@pytest.mark.slow
def test_a_full_disk(tiny: Path, small_disk: Path) -> None:
    model = ("--model", str(tiny))
    done = run(*DEMO, "--source", "demo:640x360,frames=300", *model, "--output", small_disk / "v")
    assert done.returncode == 1
    assert "No space left on device" in done.stderr.splitlines()[-1]
    for video in (small_disk / "v").iterdir():
        assert len(readable(video)[0]) > 10
        video.unlink()
    (small_disk / "fill2").write_bytes(bytes(150_000))
    done = run(*DEMO, *model, "--json", small_disk / "o.jsonl", "--max-frames", 60)
    lines = [json.loads(line) for line in (small_disk / "o.jsonl").read_text().splitlines()]
    assert done.returncode == (0 if len(lines) == 60 else 1)
    _fill(small_disk)
    for arguments in (
        (*DEMO, *model, "--stats", small_disk / "s.json", "--json", "-"),
        (*DEMO, *model, "--json", small_disk / "p.jsonl"),
    ):
        done = run(*arguments)
        assert done.returncode == 1
        assert "No space left on device" in done.stderr.splitlines()[-1]
    assert not (small_disk / "s.json").exists()
    assert list(small_disk.rglob("*partial*")) == []


@pytest.mark.slow
def test_a_full_disk_for_engines(small_disk: Path) -> None:
    cache = pytest.importorskip("realtime_ssd_engines.tensorrt.cache")
    _fill(small_disk)
    key = cache.EngineKey("m", "0" * 64, "fp16", 1, 1, "g", "8.6", "10", "5")
    with pytest.raises(ModelError, match=r"\(No space left on device\); free some space, or set"):
        cache.EngineCache(small_disk / "engines").write(key, bytes(10**6), {})
    assert list(small_disk.rglob("*.engine*")) == []


@pytest.mark.slow
def test_a_full_disk_for_models(small_disk: Path, tmp_path: Path) -> None:
    pytest.importorskip("realtime_ssd_training.importers")
    model = tiny_model(tmp_path / "m.onnx")
    _fill(small_disk)
    done = run("models", "pull", "ssd_mobilenet_v1_coco", "--from", model, models=small_disk)
    assert done.returncode == 1  # it is another file
    assert len(done.stderr.splitlines()) == 1


def _fill(folder: Path) -> None:
    try:
        (folder / "rest").write_bytes(bytes(5_000_000))
    except OSError:
        return
    raise AssertionError("the disk is larger than expected")
