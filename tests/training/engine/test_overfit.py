"""A network that cannot overfit ten images has a defect."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from realtime_ssd_training.cli.evaluate import evaluate

from tests.cli.program import run
from tests.training.scenes import draw, recipe

OVERFIT = """
[model]
name = "ssd_mobilenet_v1_fpn"
options = { width = 0.25, columns = 128, rows = 128 }
[data]
repeat = 24
[augment]
photometric = 0.0
zoom_out = 0.0
overlaps = ["whole"]
flip = 0.0
[optimizer]
name = "adamw"
lr = 5e-3
decay_all = false
clip = 5.0
[schedule]
kind = "cosine"
warmup = 20
[run]
epochs = 4
batch = 5
workers = 0
ema = 0.95
evaluate_every = 4
"""


@pytest.mark.slow
def test_ten_images_are_overfitted(tmp_path: Path) -> None:
    data = draw(tmp_path / "images")
    args = (recipe(tmp_path, OVERFIT), "--data", data, "--val", data, "--output", tmp_path / "run")
    process = run("train", *args, "--device", "cpu")
    assert process.returncode == 0, process.stderr
    # The exported file is evaluated, in the same way as any other model.
    model, scores = tmp_path / "run/model.onnx", tmp_path / "map.json"
    evaluate(model=str(model), data=data, metric="voc", json=scores)
    assert json.loads(scores.read_text())["mAP"] > 0.95
