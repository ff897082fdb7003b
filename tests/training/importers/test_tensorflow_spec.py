"""The TensorFlow SSD, compared with detections computed from the original file elsewhere."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from realtime_ssd_training.importers import import_model
from realtime_ssd_training.importers.class_names import COCO_91
from realtime_ssd_training.importers.tensorflow_spec import mobilenet_boxes

from realtime_ssd.core.errors import UsageError
from realtime_ssd.core.preprocess import preprocess
from tests.training.importers.conftest import ImportedModel, read_photo

FOLDER = "weights/ssd_mobilenet_v1_coco_onnx"


@pytest.fixture(scope="module")
def original(shared_data: Path) -> Path:
    return shared_data / FOLDER / "ssd_mobilenet_v1_coco_300.onnx"


@pytest.fixture(scope="module")
def model(original: Path, tmp_path_factory: pytest.TempPathFactory) -> ImportedModel:
    output = tmp_path_factory.mktemp("tensorflow") / "new.onnx"
    result = import_model(original, output)
    assert result.family == "tensorflow"
    assert result.dynamic_batch
    return ImportedModel(output)


def test_detections_equal_the_golden_ones(model: ImportedModel, shared_data: Path) -> None:
    golden = json.loads((shared_data / "golden/ssd_mobilenet_v1_coco_onnx.json").read_text())
    assert model.spec.thresholds.score_threshold == 0.5
    model.post_processor.spec = model.spec.with_thresholds(score_threshold=0.3)
    assert len(golden["images"]) > 30
    for name, entry in golden["images"].items():
        detections = model.detect(read_photo(shared_data / name))
        expected = entry["detections"]
        assert [item.class_id for item in detections] == [item["coco_id"] for item in expected]
        for a, b in zip(detections, expected, strict=True):
            assert a.score == pytest.approx(b["score"], abs=1e-3)
            assert a.box == pytest.approx(b["box_px_xyxy"], abs=0.5)


def test_anchors_and_labels_equal_the_published_files(
    model: ImportedModel, shared_data: Path
) -> None:
    anchors = np.load(shared_data / FOLDER / "anchors_ycxchw_f32.npy")[:, [1, 0, 3, 2]]
    np.testing.assert_allclose(model.spec.boxes.boxes(), anchors, atol=1e-6)
    names = (shared_data / FOLDER / "labelmap.txt").read_text().splitlines()
    assert model.spec.labels[1:] == tuple(names[1:])


def test_heads_equal_those_of_the_original(model: ImportedModel, shared_data: Path) -> None:
    for name in ("000009", "dog"):
        golden = np.load(shared_data / f"golden/onnx_heads/{name}.npz")
        bgr = np.ascontiguousarray(golden["input_rgb_u8"][..., ::-1])
        batch = np.stack([preprocess(bgr, model.spec.input)] * 2)
        scores, offsets = model.heads(batch)
        for row in range(2):
            np.testing.assert_allclose(scores[row], golden["class_scores"][0], atol=1e-4)
            np.testing.assert_allclose(offsets[row], golden["box_encodings"][0], atol=1e-3)


def test_unrounded_anchors_follow_the_published_configuration() -> None:
    boxes = mobilenet_boxes().boxes()
    assert boxes.shape == (1917, 4)
    np.testing.assert_allclose(boxes[0], [0.5 / 19, 0.5 / 19, 0.1, 0.1], atol=1e-7)
    np.testing.assert_allclose(boxes[-1, 2:], np.sqrt(0.95), atol=1e-6)
    assert len(COCO_91) == 91


def test_an_import_of_onnx_does_not_load_torch(original: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; "
        "from realtime_ssd_training.importers import import_model; "
        f"import_model(Path({str(original)!r}), Path({str(tmp_path / 'a.onnx')!r})); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_existing_output_is_kept(original: Path, tmp_path: Path) -> None:
    output = tmp_path / "kept.onnx"
    output.write_bytes(b"existing")
    with pytest.raises(UsageError, match="exists; set `overwrite`"):
        import_model(original, output)
    assert output.read_bytes() == b"existing"
