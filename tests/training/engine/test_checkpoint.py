"""Checkpoints: what comes back, what is refused, and what is left when a disk is full."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from realtime_ssd_training.engine.checkpoint import (
    load_model,
    read_checkpoint,
    save_checkpoint,
    start_from,
)
from realtime_ssd_training.engine.run_folder import RunFolder
from realtime_ssd_training.models import create
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
    save_checkpoint(path, create(NAME, LABELS, **OPTIONS), facts={"epoch": 7})
    return path


def test_there_and_back(saved: Path) -> None:
    torch.manual_seed(1)
    wanted = create(NAME, LABELS, **OPTIONS)
    found = load_model(saved)
    assert not found.training
    assert found.spec == wanted.spec
    assert found.options == OPTIONS
    for name, value in wanted.state_dict().items():
        assert torch.equal(value, found.state_dict()[name])
    assert read_checkpoint(saved).facts == {"epoch": 7}


def test_the_side_car_says_what_the_file_says(saved: Path) -> None:
    side = json.loads(saved.with_suffix(".json").read_text())
    assert (side["architecture"], side["options"], side["facts"]) == (NAME, OPTIONS, {"epoch": 7})
    assert side["spec"]["labels"] == list(LABELS)
    assert next(iter(load_file(saved))).startswith("model/")
    assert sorted(path.name for path in saved.parent.iterdir()) == [
        "model.json",
        "model.safetensors",
    ]


def test_averages_are_what_is_used(tmp_path: Path) -> None:
    model = create(NAME, LABELS, **OPTIONS)
    average = {name: torch.full_like(value, 2) for name, value in model.state_dict().items()}
    save_checkpoint(tmp_path / "m.safetensors", model, {"ema": average})
    for value in load_model(tmp_path / "m.safetensors").state_dict().values():
        assert bool((value == 2).all())


def test_files_that_are_no_checkpoint(saved: Path, tmp_path: Path) -> None:
    data = saved.read_bytes()
    broken = {
        "cut": data[:-100],
        "short": data[:50],
        "empty": b"",
        "text": b"no tensors at all" * 20,
        "header": data[:8] + b"\xff" + data[9:],
    }
    for name, content in broken.items():
        (tmp_path / f"{name}.safetensors").write_bytes(content)
    save_file({"a": torch.zeros(2)}, tmp_path / "other.safetensors")
    for number, head in enumerate(("{}", "[]", '"x"', '{"architecture": 3}')):
        meta = {"realtime_ssd": head}
        save_file({"model/a": torch.zeros(2)}, tmp_path / f"meta{number}.safetensors", meta)
    save_file({"a": torch.zeros(2)}, tmp_path / "group.safetensors", {"realtime_ssd": "{}"})
    for path in sorted(tmp_path.glob("*.safetensors")):
        with pytest.raises(ModelError, match="is no checkpoint of this program, or it is damaged"):
            read_checkpoint(path)
    with pytest.raises(UsageError, match="does not exist"):
        read_checkpoint(tmp_path / "missing.safetensors")
    with pytest.raises(UsageError, match=r"is a folder; give the file best\.safetensors in it"):
        read_checkpoint(tmp_path)


def test_start_takes_what_fits(saved: Path) -> None:
    other = create(NAME, (*LABELS, "c"), **OPTIONS)
    before = {name: value.clone() for name, value in other.state_dict().items()}
    taken, tensors = start_from(other, saved)
    weights = read_checkpoint(saved).weights
    new = [name for name in before if torch.equal(other.state_dict()[name], before[name])]
    heads = [name for name in before if name.startswith("score_heads")]
    assert tensors - taken == len(heads) == 10
    assert set(heads) <= set(new)
    for name in set(before) - set(heads):
        assert torch.equal(other.state_dict()[name], weights[name])


def test_start_of_another_network(saved: Path) -> None:
    with pytest.raises(ModelError, match=r"no weights in .* fit 'tiny'; use a related model"):
        start_from(tiny_ssd(), saved)


FULL = """
import resource, sys
from pathlib import Path
from realtime_ssd.core.errors import RealtimeSSDError
from tests.training.tiny_ssd import tiny_recipe, train
# A file may grow to this size and no further; to the program it looks like a disk that is full.
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    train(Path(sys.argv[1]), tiny_recipe(run__epochs=4), resume=True)
except RealtimeSSDError as error:
    sys.exit(f"realtime-ssd: {error}")
"""


@pytest.mark.parametrize(
    ("room", "text"),
    [(3000, "the checkpoint"), (20_000, "the run's folder")],
    ids=["state", "curves"],
)
def test_a_full_disk_leaves_the_state_before_it(tmp_path: Path, room: int, text: str) -> None:
    train(tmp_path / "run", tiny_recipe(run__epochs=1))
    last = tmp_path / "run/last.safetensors"
    assert 3000 < last.stat().st_size < 20_000 < (tmp_path / "run/curves.png").stat().st_size
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path / "run"), str(room)],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"realtime-ssd: {text}")
    assert "cannot be written (File too large)" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    after = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    assert set(after) == set(before), "a half file was left"
    if text == "the checkpoint":
        assert after == before
    read_checkpoint(last)
    assert train(tmp_path / "run", tiny_recipe(run__epochs=4), resume=True)[1].epochs == 4


def test_another_recipe_does_not_go_on(tmp_path: Path) -> None:
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


def test_weights_are_no_run(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "last.safetensors", tiny_ssd())
    with pytest.raises(UsageError, match="holds weights but no run to go on with; use --init"):
        train(tmp_path, tiny_recipe(), resume=True)


def test_a_damaged_run_says_so(tmp_path: Path) -> None:
    train(tmp_path, tiny_recipe(run__epochs=1))
    path = tmp_path / "last.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ModelError, match="or it is damaged"):
        train(tmp_path, tiny_recipe(run__epochs=2), resume=True)


def test_folders(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no run to resume in .*; leave --resume out"):
        RunFolder(tmp_path / "new", resume=True)
    train(tmp_path / "run", tiny_recipe(run__epochs=1))
    with pytest.raises(UsageError, match="holds a run already; add --resume or choose another"):
        RunFolder(tmp_path / "run", resume=False)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be made"):
        RunFolder(tmp_path / "file/run", resume=False)


def test_the_best_is_kept(tmp_path: Path) -> None:
    """Scores come from a validation set that gets harder, so that the first epoch is the best."""

    class Fading(Squares):
        epoch = 0

        def annotation(self, index: int):  # type: ignore[no-untyped-def]
            truth = super().annotation(index)
            truth.boxes[:] += 3 * self.epoch
            return truth

    val = Fading(4)

    def harder(index: int) -> None:
        val.epoch += index == 0

    val.before = harder
    trainer, outcome = train(tmp_path, tiny_recipe(run__epochs=5), val=val, data=Squares(40))
    scores = [row.score for row in trainer.rows]
    best = read_checkpoint(tmp_path / "best.safetensors").facts
    assert best["score"] == outcome.best == max(score for score in scores if score is not None)
    assert scores[best["epoch"] - 1] == best["score"]
    assert best["epoch"] < 5
