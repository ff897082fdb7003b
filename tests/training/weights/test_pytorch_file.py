"""Weights in files of other projects, whatever surrounds them, without running code in them."""

from __future__ import annotations

import argparse
import enum
import pickle
import random
import zipfile
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from realtime_ssd_training.weights.pytorch_file import read_pytorch_file
from torch import Tensor, nn

from realtime_ssd.core.errors import ModelError

WEIGHTS = {f"layer{k}.weight": torch.full((2, 3), float(k)) for k in range(12)}


class Stage(enum.Enum):
    TRAIN = 1


class Options(dict[str, Any]):
    """Like the options of Lightning: a dictionary of its own class."""


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())


def prefixed(prefix: str) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in WEIGHTS.items()}


OPTIMIZER = {"state": {k: {"exp_avg": value} for k, value in enumerate(WEIGHTS.values())}}
CONTENTS: dict[str, tuple[Any, str]] = {
    "plain": (WEIGHTS, ""),
    "ordered": (OrderedDict(WEIGHTS), ""),
    "model_state_dict": (
        {"epoch": 3, "model_state_dict": WEIGHTS, "optimizer_state_dict": OPTIMIZER},
        "model_state_dict",
    ),
    "net": ({"net": WEIGHTS, "acc": 0.7}, "net"),
    "tensor beside": ({"epoch": torch.tensor(3), "state_dict": WEIGHTS}, "state_dict"),
    "unusual key": ({"detector weights": WEIGHTS, "loss": 1.0}, "detector weights"),
    "tuple": ((3, WEIGHTS), "1"),
    "nested": ({"checkpoint": {"model": WEIGHTS}}, "checkpoint.model"),
    "average": ({"model_ema": prefixed("module."), "model": WEIGHTS}, "model"),
    "Lightning": (
        {
            "state_dict": {**prefixed("model."), "criterion.scale": torch.ones(1)},
            "hyper_parameters": Options(lr=0.1, stage=Stage.TRAIN),
            "loops": defaultdict(list, {"a": [1]}),
        },
        "state_dict",
    ),
    "compiled": (prefixed("_orig_mod."), ""),
    "parallel and compiled": ({"model": prefixed("_orig_mod.module.")}, "model"),
    "Namespace": ({"model": WEIGHTS, "args": argparse.Namespace(lr=0.1, path=Path("/x"))}, "model"),
    "numpy scalar": ({"model": WEIGHTS, "map": np.float64(0.5), "sizes": np.arange(3)}, "model"),
    "set and enum": ({"model": WEIGHTS, "stages": {Stage.TRAIN: {1, 2}}}, "model"),
    "half": ({"model": {name: value.half() for name, value in WEIGHTS.items()}}, "model"),
}


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("kind", CONTENTS)
def test_weights_are_found_inside_wrappers(kind: str, legacy: bool, tmp_path: Path) -> None:
    content, location = CONTENTS[kind]
    path = tmp_path / "model.ckpt"
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    file = read_pytorch_file(path)
    assert file.location == location
    assert file.tensors.keys() == WEIGHTS.keys()
    assert all(torch.equal(file.tensors[name].float(), WEIGHTS[name]) for name in WEIGHTS)


def test_a_whole_network_is_read_without_its_class(tmp_path: Path) -> None:
    net = Net()
    torch.save({"model": net, "epoch": 1}, tmp_path / "net.pt")
    file = read_pytorch_file(tmp_path / "net.pt")
    assert file.tensors.keys() == net.state_dict().keys()
    for name, value in net.state_dict().items():
        assert torch.equal(file.tensors[name], value)


def test_values_beside_the_weights_are_kept(tmp_path: Path) -> None:
    torch.save({"meta": {"CLASSES": ("cat", "dog")}, "state_dict": WEIGHTS}, tmp_path / "m.pth")
    assert read_pytorch_file(tmp_path / "m.pth").metadata["meta"]["CLASSES"] == ("cat", "dog")


class Attack:
    """An object that names a function to be called with arguments when it is loaded."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


def attacks(mark: Path) -> dict[str, Any]:
    return {
        "method": Attack(Path.touch, mark),
        "eval": Attack(eval, f"open({str(mark)!r}, 'w')"),
        "import": Attack(__import__, "antigravity"),
        "getattr": Attack(getattr, Attack(__import__, "os"), "system"),
        "load": Attack(torch.load, str(mark)),
        "numpy": Attack(np.save, str(mark), np.zeros(1)),
    }


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("kind", attacks(Path()))
def test_nothing_in_a_file_is_executed(kind: str, legacy: bool, tmp_path: Path) -> None:
    mark, path = tmp_path / "mark", tmp_path / "model.pth"
    content = {"model": WEIGHTS, "extra": attacks(mark)[kind]}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    assert read_pytorch_file(path).tensors.keys() == WEIGHTS.keys()
    path.write_bytes(pickle.dumps(attacks(mark)[kind]))
    with pytest.raises(ModelError):
        read_pytorch_file(path)
    assert list(tmp_path.glob("mark*")) == []


def test_a_file_cannot_change_functions_that_rebuild_tensors(tmp_path: Path) -> None:
    rebuild = torch._utils._rebuild_tensor_v2
    state = b"(dVbroken\nI1\ns"
    program = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n" + state + b"b."
    with zipfile.ZipFile(tmp_path / "m.pth", "w") as archive:
        archive.writestr("m/data.pkl", program)
        archive.writestr("m/version", "3\n")
    with pytest.raises(ModelError):
        read_pytorch_file(tmp_path / "m.pth")
    assert not hasattr(rebuild, "broken")


def test_files_without_weights_are_refused_with_what_they_contain(tmp_path: Path) -> None:
    path = tmp_path / "m.pth"
    torch.save({"epoch": 3, "args": argparse.Namespace()}, path)
    with pytest.raises(ModelError, match=r"has no state_dict, only epoch, args; save the model's"):
        read_pytorch_file(path)
    torch.save([1, 2], path)
    with pytest.raises(ModelError, match=r"has no state_dict; save the model's"):
        read_pytorch_file(path)
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), path)
    with pytest.raises(ModelError, match="is a TorchScript program"):
        read_pytorch_file(path)
    data = path.read_bytes()
    for size in (0, 10, len(data) // 2, len(data) - 30):
        path.write_bytes(data[:size])
        with pytest.raises(ModelError, match="not a PyTorch file of plain weights"):
            read_pytorch_file(path)


def test_no_program_in_a_crafted_archive_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python's zip reader refuses some archives that PyTorch's accepts."""

    loaded = []

    def load(*_: object, **__: object) -> None:
        loaded.append(1)

    path = tmp_path / "m.pth"
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), path)
    data = path.read_bytes()
    monkeypatch.setattr(torch.jit, "load", load)
    directory, end = data.index(b"PK\1\2"), data.rindex(b"PK\5\6")
    refused = 0
    for seed in range(400):
        chance = random.Random(seed)
        changed = bytearray(data)
        for _ in range(chance.randint(1, 2)):
            place = chance.choice((end + chance.randrange(22), chance.randrange(directory, end)))
            changed[place] ^= 1 << chance.randrange(8)
        path.write_bytes(changed)
        try:
            read_pytorch_file(path)
        except ModelError:
            refused += 1
    assert not loaded
    assert refused > 300
