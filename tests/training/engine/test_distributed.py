"""Two processes on one machine train the same weights as one, and stop together."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from realtime_ssd_training.cli.train import train
from realtime_ssd_training.engine.distributed import DistributedContext, init_distributed
from realtime_ssd_training.models.checkpoint import read_checkpoint

from realtime_ssd.core.errors import UsageError
from tests.cli.program import ENVIRONMENT
from tests.training.scenes import RECIPE, draw, recipe

# Batch normalization is frozen because half batches have different statistics.
FROZEN = RECIPE.replace("[augment]", 'norm = "frozen"\n[augment]').replace("batch = 2", "batch = 4")


def torchrun(*args: object) -> list[str]:
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone")
    return [*launcher, "--nproc-per-node", "2", "-m", "realtime_ssd", *map(str, args)]


def test_two_processes_train_the_same_weights_as_one(tmp_path: Path) -> None:
    data, path = draw(tmp_path / "images"), recipe(tmp_path, FROZEN)
    args = ("train", path, "--data", data, "--val", data, "--device", "cpu")
    train(str(path), output=tmp_path / "one", data=data, val=data, device="cpu")
    two = subprocess.run(
        torchrun(*args, "--output", tmp_path / "two"),
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
        env=ENVIRONMENT,
    )
    assert two.returncode == 0, two.stderr
    first, second = (
        read_checkpoint(tmp_path / name / "last.safetensors") for name in ("one", "two")
    )
    for group in ("model", "ema", "optimizer"):
        for name, value in first.tensors[group].items():
            other = second.tensors[group][name]
            torch.testing.assert_close(other, value, rtol=1e-4, atol=1e-6, msg=f"{group}/{name}")
    losses = [[row["loss"] for row in c.metadata["rows"]] for c in (first, second)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert second.metadata["progress"]["step"] == first.metadata["progress"]["step"] == 4
    # Only the main process prints and writes files.
    epochs = [line for line in two.stdout.splitlines() if line.startswith("epoch ")]
    assert [line.split()[1] for line in epochs] == ["1", "2"]
    assert two.stdout.count("model.onnx") == 1
    config = json.loads((tmp_path / "two/config.json").read_text())
    assert (config["processes"], config["device"]) == (2, "cpu")
    assert len(list((tmp_path / "two/tensorboard").iterdir())) == 1
    files = sorted(path.name for path in (tmp_path / "two").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "one").iterdir())


def test_sigterm_to_torchrun_saves_the_state(tmp_path: Path) -> None:
    data = draw(tmp_path / "images")
    path = recipe(tmp_path, FROZEN.replace("epochs = 2", "epochs = 500"))
    args = ("train", path, "--data", data, "--device", "cpu", "--output", tmp_path / "run")
    with subprocess.Popen(
        torchrun(*args), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("epoch 2 "):
                process.send_signal(signal.SIGTERM)
                break
        output, _ = process.communicate(timeout=100)
    assert process.returncode != 0
    assert sum("the state is saved" in line for line in output.splitlines()) == 1
    metadata = read_checkpoint(tmp_path / "run/last.safetensors").metadata
    done = metadata["progress"]["epoch"]
    assert 2 <= done < 500
    assert len(metadata["rows"]) == done
    # One process resumes the run of two.
    folder, epochs = tmp_path / "run", done + 1
    train(str(path), output=folder, data=data, device="cpu", resume=True, epochs=epochs)
    assert len(read_checkpoint(tmp_path / "run/last.safetensors").metadata["rows"]) == done + 1


def test_a_batch_must_be_a_multiple_of_the_number_of_processes() -> None:
    context = DistributedContext(0, 3, torch.device("cpu"))
    assert context.local_batch_size(9) == 3
    with pytest.raises(
        UsageError, match=r"`batch` of 4 images .* 3 processes; use a multiple of 3"
    ):
        context.local_batch_size(4)


def test_a_single_process_needs_no_communication() -> None:
    assert "WORLD_SIZE" not in os.environ
    context = init_distributed("cpu")
    assert (context.rank, context.world_size, context.is_main) == (0, 1, True)
    assert context.all_gather(["a", "b"]) == ["a", "b"]
    values = torch.ones(3)
    assert context.all_reduce(values) is values


def test_only_rank_0_is_the_main_process() -> None:
    assert not DistributedContext(1, 2, torch.device("cpu")).is_main


@pytest.mark.parametrize("name", ["quantum", "cuda:99", "cuda"])
def test_a_device_that_does_not_exist_is_rejected(name: str) -> None:
    if torch.cuda.is_available() and name == "cuda":
        pytest.skip("there is a GPU")
    with pytest.raises(UsageError, match=r"is unknown|needs a usable GPU|does not exist"):
        init_distributed(name)
