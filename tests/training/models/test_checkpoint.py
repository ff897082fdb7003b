"""Checkpoints: contents, rejected files, and full disks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from realtime_ssd_training.data.sample import Annotation
from realtime_ssd_training.engine.run_folder import RunFolder
from realtime_ssd_training.models import create
from realtime_ssd_training.models.checkpoint import (
    load_model,
    read_checkpoint,
    save_checkpoint,
)
from safetensors.torch import load_file, save_file

from realtime_ssd.core.errors import ModelError, UsageError
from tests.training.tiny_ssd import Squares, tiny_recipe, tiny_ssd, train

LABELS = ("background", "a", "b")
OPTIONS = {"width": 0.25, "columns": 128, "rows": 128}
NAME = "ssd_mobilenet_v1_fpn"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("saved") / "model.safetensors"
    save_checkpoint(path, create(NAME, LABELS, **OPTIONS), metadata={"epoch": 7})
    return path


def test_a_checkpoint_restores_the_network(saved: Path) -> None:
    torch.manual_seed(1)
    original = create(NAME, LABELS, **OPTIONS)
    restored = load_model(saved)
    assert not restored.training
    assert restored.spec == original.spec
    assert restored.options == OPTIONS
    for name, value in original.state_dict().items():
        assert torch.equal(value, restored.state_dict()[name])
    assert read_checkpoint(saved).metadata == {"epoch": 7}


def test_the_side_car_repeats_the_header(saved: Path) -> None:
    side = json.loads(saved.with_suffix(".json").read_text())
    assert (side["architecture"], side["options"], side["facts"]) == (NAME, OPTIONS, {"epoch": 7})
    assert side["spec"]["labels"] == list(LABELS)
    assert next(iter(load_file(saved))).startswith("model/")
    assert sorted(path.name for path in saved.parent.iterdir()) == [
        "model.json",
        "model.safetensors",
    ]


def test_the_moving_average_is_used_if_there_is_one(tmp_path: Path) -> None:
    model = create(NAME, LABELS, **OPTIONS)
    average = {name: torch.full_like(value, 2) for name, value in model.state_dict().items()}
    save_checkpoint(tmp_path / "m.safetensors", model, {"ema": average})
    for value in load_model(tmp_path / "m.safetensors").state_dict().values():
        assert bool((value == 2).all())


def test_other_files_are_rejected(saved: Path, tmp_path: Path) -> None:
    data = saved.read_bytes()
    invalid = {
        "cut": data[:-100],
        "short": data[:50],
        "empty": b"",
        "text": b"no tensors at all" * 20,
        "header": data[:8] + b"\xff" + data[9:],
    }
    for name, content in invalid.items():
        (tmp_path / f"{name}.safetensors").write_bytes(content)
    save_file({"a": torch.zeros(2)}, tmp_path / "other.safetensors")
    for number, header in enumerate(("{}", "[]", '"x"', '{"architecture": 3}')):
        meta = {"realtime_ssd": header}
        save_file({"model/a": torch.zeros(2)}, tmp_path / f"meta{number}.safetensors", meta)
    save_file({"a": torch.zeros(2)}, tmp_path / "group.safetensors", {"realtime_ssd": "{}"})
    for path in sorted(tmp_path.glob("*.safetensors")):
        with pytest.raises(ModelError, match="is damaged or is not a checkpoint of this program"):
            read_checkpoint(path)
    with pytest.raises(UsageError, match="does not exist"):
        read_checkpoint(tmp_path / "missing.safetensors")
    with pytest.raises(UsageError, match=r"is a folder; use the file best\.safetensors in it"):
        read_checkpoint(tmp_path)


FULL = """
import resource, sys
from pathlib import Path
from realtime_ssd.core.errors import RealtimeSSDError
from tests.training.tiny_ssd import tiny_recipe, train
# A limit of the file size has the same effect as a full disk.
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    train(Path(sys.argv[1]), tiny_recipe(run__epochs=4), resume=True)
except RealtimeSSDError as error:
    sys.exit(f"realtime-ssd: {error}")
"""


@pytest.mark.parametrize(
    ("limit", "text"),
    [(3000, "the checkpoint"), (20_000, "run folder")],
    ids=["state", "curves"],
)
def test_a_full_disk_keeps_the_previous_checkpoint(tmp_path: Path, limit: int, text: str) -> None:
    train(tmp_path / "run", tiny_recipe(run__epochs=1))
    last = tmp_path / "run/last.safetensors"
    assert 3000 < last.stat().st_size < 20_000 < (tmp_path / "run/curves.png").stat().st_size
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    process = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path / "run"), str(limit)],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert process.returncode == 1
    assert process.stderr.startswith(f"realtime-ssd: {text}")
    assert "cannot be written (File too large)" in process.stderr
    assert len(process.stderr.splitlines()) == 1
    after = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    assert set(after) == set(before), "a partial file was left"
    if text == "the checkpoint":
        assert after == before
    read_checkpoint(last)
    assert train(tmp_path / "run", tiny_recipe(run__epochs=4), resume=True)[1].epochs == 4


def test_a_run_is_not_resumed_with_another_recipe(tmp_path: Path) -> None:
    train(tmp_path, tiny_recipe(run__epochs=1))
    before = (tmp_path / "last.safetensors").read_bytes()
    for change, text in (
        ({"run__batch": 2}, "differs in run.batch"),
        ({"optimizer__name": "adamw", "run__ema": 0.0}, "differs in optimizer.name, run.ema"),
        ({"run__amp": "fp16"}, "differs in run.amp"),
    ):
        with pytest.raises(UsageError, match=text):
            train(tmp_path, tiny_recipe(run__epochs=2, **change), resume=True)
    model = tiny_ssd()
    object.__setattr__(model.spec, "labels", ("background", "dark"))
    with pytest.raises(UsageError, match="other classes or default boxes"):
        train(tmp_path, tiny_recipe(run__epochs=2), model=model, resume=True)
    assert (tmp_path / "last.safetensors").read_bytes() == before


def test_a_checkpoint_without_a_run_cannot_be_resumed(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "last.safetensors", tiny_ssd())
    with pytest.raises(UsageError, match="contains weights but no run to resume; use `init`"):
        train(tmp_path, tiny_recipe(), resume=True)


def test_a_damaged_run_is_reported(tmp_path: Path) -> None:
    train(tmp_path, tiny_recipe(run__epochs=1))
    path = tmp_path / "last.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ModelError, match="is damaged or is not a checkpoint"):
        train(tmp_path, tiny_recipe(run__epochs=2), resume=True)


def test_a_run_folder_must_fit_resume(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"contains no run to resume; omit `resume`"):
        RunFolder(tmp_path / "new", resume=True)
    train(tmp_path / "run", tiny_recipe(run__epochs=1))
    with pytest.raises(UsageError, match="already contains a run; set `resume` to continue it"):
        RunFolder(tmp_path / "run", resume=False)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is not a folder"):
        RunFolder(tmp_path / "file/run", resume=False)
    with pytest.raises(UsageError, match=r"`resume` continues .* `overwrite` replaces it"):
        RunFolder(tmp_path / "run", resume=True, overwrite=True)


def test_the_best_weights_are_kept(tmp_path: Path) -> None:
    """The validation set becomes harder every epoch, so that an early epoch is the best."""

    class Fading(Squares):
        epoch = 0

        def annotation(self, index: int) -> Annotation:
            truth = super().annotation(index)
            truth.boxes[:] += 3 * self.epoch
            return truth

    val = Fading(4)

    def harder(index: int) -> None:
        val.epoch += index == 0

    val.before_read = harder
    trainer, _ = train(tmp_path, tiny_recipe(run__epochs=5), val=val, data=Squares(40))
    scores = [row.score for row in trainer.history]
    best = read_checkpoint(tmp_path / "best.safetensors").metadata
    assert best["score"] == max(score for score in scores if score is not None)
    assert scores[best["epoch"] - 1] == best["score"]
    assert best["epoch"] < 5
