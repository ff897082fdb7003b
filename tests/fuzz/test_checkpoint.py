"""Mutated checkpoints: the header is decoded with the same limits as a specification."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from realtime_ssd.core.errors import ModelError, UsageError
from tests.fuzz.mutations import mutate_bytes, mutate_json

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from realtime_ssd_training.models.checkpoint import HEADER, read_checkpoint  # noqa: E402
from safetensors.torch import save  # noqa: E402

from realtime_ssd.core.spec import spec_from_json  # noqa: E402
from tests.core.test_spec import TEXT  # noqa: E402


def test_mutated_checkpoints(tmp_path: Path) -> None:
    header = {"architecture": "a", "options": {"w": 1}, "spec": json.loads(TEXT), "facts": {}}
    tensors = {"model/w": torch.ones(2, 3)}
    path = tmp_path / "m.safetensors"
    messages = []
    for seed in range(300):
        chance = random.Random(seed)
        changed = mutate_json(header, chance) if seed % 2 else header
        content = save(tensors, metadata={HEADER: json.dumps(changed)})
        path.write_bytes(content if seed % 2 else mutate_bytes(content, chance))
        try:
            spec_from_json(read_checkpoint(path).spec)
        except (ModelError, UsageError) as error:
            messages.append(str(error))
    assert len(messages) > 150
    assert [message for message in messages if not message.isprintable()] == []


@pytest.mark.parametrize("text", ["[" * 100_000, '{"spec":' + "[" * 900 + "]" * 900 + "}", "[]"])
def test_hostile_headers(tmp_path: Path, text: str) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(save({"model/w": torch.ones(1)}, metadata={HEADER: text}))
    with pytest.raises(ModelError, match="is damaged or is not a checkpoint"):
        read_checkpoint(path)
