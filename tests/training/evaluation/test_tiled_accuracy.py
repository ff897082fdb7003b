"""Tiles find small objects: average precision with and without them."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from realtime_ssd_training.data import open_dataset
from realtime_ssd_training.evaluation.evaluator import Evaluation, evaluate, open_model
from realtime_ssd_training.importers import import_model
from realtime_ssd_training.importers.import_options import ImportOptions

from realtime_ssd.core.tiles import TileOptions
from realtime_ssd.synthetic import LABELS, StreetScene
from realtime_ssd.zoo import BUNDLED

VIEW = (640, 360)


def measure(model: Path, data: str, tile: TileOptions | None) -> dict[str, float]:
    with open_model(model, "onnxruntime", tile=tile) as backend:
        result: Evaluation = evaluate(backend, open_dataset(data))
    return result.metrics.summary


def write_wall(folder: Path, images: int) -> str:
    """Write 4K images of 6 × 6 views of the synthetic street, each with small objects."""
    content: dict[str, list[dict[str, object]]] = {"images": [], "annotations": []}
    content["categories"] = [{"id": k, "name": label} for k, label in enumerate(LABELS)]
    for number in range(1, images + 1):
        canvas = np.zeros((6 * VIEW[1], 6 * VIEW[0], 3), np.uint8)
        size = {"width": canvas.shape[1], "height": canvas.shape[0]}
        content["images"].append({"id": number, "file_name": f"{number}.jpg", **size})
        for place in range(36):
            scene = StreetScene(*VIEW, seed=900 + (36 * number + place) % 12)
            view, truth = scene.frame(53 * number + 7 * place)
            x, y = place % 6 * VIEW[0], place // 6 * VIEW[1]
            canvas[y : y + VIEW[1], x : x + VIEW[0]] = view
            for item in truth:
                x1, y1, x2, y2 = item.box
                content["annotations"].append(
                    {
                        "id": len(content["annotations"]) + 1,
                        "image_id": number,
                        "category_id": LABELS.index(item.label),
                        "bbox": [x1 + x, y1 + y, x2 - x1, y2 - y1],
                        "area": (x2 - x1) * (y2 - y1),
                        "iscrowd": int(item.difficult),
                    }
                )
        cv2.imwrite(str(folder / f"{number}.jpg"), canvas)
    (folder / "wall.json").write_text(json.dumps(content))
    return f"coco:{folder / 'wall.json'}"


@pytest.mark.nightly
def test_small_objects_of_4k_images(tmp_path: Path) -> None:
    data = write_wall(tmp_path, 2)
    without = measure(BUNDLED, data, None)
    tiled = measure(BUNDLED, data, TileOptions())
    assert without["AP_small"] < 0.01
    assert tiled["AP_small"] > 0.2
    assert tiled["AP"] > 0.4 > without["AP"]


@pytest.mark.nightly
def test_small_objects_of_photos(shared_data: Path, tmp_path: Path) -> None:
    weights = shared_data / "weights" / "ssd_mobilenet_v1_coco_quant"
    model = tmp_path / "coco.onnx"
    import_model(weights / "detect.tflite", model, ImportOptions(labels=weights / "labelmap.txt"))
    folder = shared_data / "coco_mini"
    data = f"coco:{folder / 'instances.json'}:{folder / 'JPEGImages'}"
    without = measure(model, data, None)
    tiled = measure(model, data, TileOptions((320, 320)))
    assert tiled["AP_small"] >= 2 * without["AP_small"] > 0.08
    assert tiled["AP_medium"] > without["AP_medium"] + 0.1
    assert tiled["AP"] > without["AP"] + 0.03
    assert tiled["AP_large"] > without["AP_large"] - 0.03
