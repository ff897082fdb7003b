"""TFLite SSDs, compared with TFLite's own interpreter and with stored results of the real one."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from realtime_ssd_training.importers import ImportOptions, import_model
from realtime_ssd_training.importers.nhwc_graph import same_padding

from realtime_ssd import Detector
from realtime_ssd.core.errors import ModelError, UsageError
from realtime_ssd.core.spec import ModelSpec
from tests.test_golden import assert_same
from tests.training.importers.conftest import ImportedModel
from tests.training.importers.tflite_builder import (
    COLUMNS,
    POST_PROCESSING,
    ROWS,
    Network,
    Precision,
    encode_table,
    tiny_ssd,
)

ORACLE = Path(__file__).with_name("tflite_oracle.json")
QUANT = "weights/ssd_mobilenet_v1_coco_quant"


@pytest.fixture(scope="module")
def real(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Google's COCO detector, imported."""
    output = tmp_path_factory.mktemp("tflite") / "coco.onnx"
    result = import_model(shared_data / QUANT / "detect.tflite", output)
    assert result.dynamic_batch
    assert result.labels_origin.endswith("labelmap.txt")
    return output


def import_bytes(folder: Path, content: bytes, **options: Any) -> ImportedModel:
    (folder / "model.tflite").write_bytes(content)
    import_model(folder / "model.tflite", folder / "new.onnx", ImportOptions(**options))
    return ImportedModel(folder / "new.onnx")


def image_batch(spec: ModelSpec) -> Any:
    """The image of the oracle as the network receives it."""
    pixels = np.random.default_rng(1).integers(0, 256, (1, ROWS, COLUMNS, 3))
    values = (pixels - np.array(spec.input.mean)) * spec.input.scale
    return values.astype(np.float32).transpose(0, 3, 1, 2)


def test_real_heads_equal_the_stored_ones(real: Path, shared_data: Path) -> None:
    model = ImportedModel(real)
    files = sorted((shared_data / "golden/onnx_heads").glob("*.npz"))
    assert len(files) == 2
    for file in files:
        stored = np.load(file)
        pixels = stored["input_rgb_u8"].transpose(2, 0, 1)[None].astype(np.float32)
        mean, scale = (
            np.array(values, np.float32)[:, None, None]
            for values in (model.spec.input.mean, model.spec.input.scale)
        )
        scores, offsets = model.heads((pixels - mean) * scale)
        np.testing.assert_allclose(scores, stored["class_scores"], atol=1e-5)
        np.testing.assert_allclose(offsets, stored["box_encodings"], atol=1e-4)


def test_real_detections_equal_the_stored_ones(real: Path, shared_data: Path) -> None:
    golden = json.loads((shared_data / "golden/ssd_mobilenet_v1_coco_onnx.json").read_text())
    assert len(golden["images"]) > 30
    with Detector(real, score_threshold=0.3) as detector:
        for name, expected in golden["images"].items():
            assert_same(detector(shared_data / name), expected["detections"])


def test_real_default_boxes_equal_the_stored_ones(real: Path, shared_data: Path) -> None:
    spec = ImportedModel(real).spec
    stored = np.load(shared_data / QUANT / "anchors_ycxchw_f32.npy")
    np.testing.assert_allclose(spec.boxes.boxes()[:, [1, 0, 3, 2]], stored, atol=1e-5)
    assert spec.variances == (0.1, 0.1, 0.2, 0.2)
    assert spec.thresholds.iou_threshold == 0.6


@pytest.mark.parametrize(
    ("precision", "tolerance"),
    [("float32", 3e-5), ("float16", 3e-5), ("int8_weights", 3e-5), ("int8", 0.16)],
)
def test_networks_equal_the_interpreter(
    tmp_path: Path, precision: Precision, tolerance: float
) -> None:
    expected = json.loads(ORACLE.read_text())[precision]
    model = import_bytes(tmp_path, tiny_ssd(precision))
    scores, offsets = model.heads(image_batch(model.spec))
    np.testing.assert_allclose(offsets[0], expected["offsets"], atol=tolerance)
    np.testing.assert_allclose(scores[0], expected["scores"], atol=tolerance)


def test_kept_integers_equal_the_interpreter(tmp_path: Path) -> None:
    expected = json.loads(ORACLE.read_text())["int8"]
    model = import_bytes(tmp_path, tiny_ssd("int8"), keep_quantized=True)
    scores, offsets = model.heads(image_batch(model.spec))
    step = 12 / 255
    assert np.abs(offsets[0] - expected["offsets"]).max() < 2.1 * step
    assert np.abs(offsets[0] - expected["offsets"]).mean() < step
    assert np.abs(scores[0] - expected["scores"]).max() < 2.1 * step / 4


def test_kept_integers_of_the_real_network_equal_the_stored_ones(
    shared_data: Path, tmp_path: Path
) -> None:
    output = tmp_path / "int8.onnx"
    import_model(shared_data / QUANT / "detect.tflite", output, ImportOptions(keep_quantized=True))
    assert output.stat().st_size < 5e6
    model = ImportedModel(output)
    for file in sorted((shared_data / "golden/raw_heads").glob("*.npz")):
        stored = np.load(file)
        pixels = stored["input_rgb_u8"].transpose(2, 0, 1)[None].astype(np.float32)
        scores, _ = model.heads((pixels - 128) / 128)
        difference = np.abs(scores[0] - stored["class_scores_u8"] / np.float32(256))
        assert difference.max() < 0.03
        assert difference.mean() < 3e-4


def test_keep_quantized_is_for_tflite_only(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="`keep_quantized` is for TFLite files, not for"):
        import_model(tiny, tmp_path / "new.onnx", ImportOptions(keep_quantized=True))


def test_detections_equal_the_post_processing_of_the_interpreter(tmp_path: Path) -> None:
    expected = json.loads(ORACLE.read_text())["float32"]
    model = import_bytes(tmp_path, tiny_ssd("float32"))
    assert model.spec.thresholds.score_threshold == 0.5
    assert model.spec.thresholds.iou_threshold == 0.5
    model.post_processor.spec = model.spec.with_thresholds(score_threshold=0.2, max_detections=20)
    scores, offsets = model.heads(image_batch(model.spec))
    found = model.post_processor(scores[0], offsets[0])
    assert len(found.scores) == len(expected["values"]) > 3
    np.testing.assert_allclose(found.scores, expected["values"], atol=3e-5)
    np.testing.assert_allclose(found.boxes[:, [1, 0, 3, 2]], expected["boxes_yxyx"], atol=1e-4)
    assert (found.class_ids - 1).tolist() == expected["classes"]


def test_quantized_input_defines_the_pre_processing(tmp_path: Path) -> None:
    spec = import_bytes(tmp_path, tiny_ssd("int8")).spec.input
    assert (spec.width, spec.height, spec.channels) == (COLUMNS, ROWS, "RGB")
    pixels = np.array([0, 255])
    np.testing.assert_allclose((pixels - spec.mean[0]) * spec.scale[0], [-1, 1], atol=2 / 255)


def test_float_input_is_normalized_to_one_unless_the_metadata_state_otherwise(
    tmp_path: Path,
) -> None:
    spec = import_bytes(tmp_path, tiny_ssd("float32")).spec.input
    assert (spec.mean, spec.scale) == ((127.5,) * 3, (1 / 127.5,) * 3)
    options = {0: np.array([1, 2, 3], np.float32), 1: np.array([4, 5, 8], np.float32)}
    unit = {0: np.uint8(1), 1: options}
    metadata = encode_table({3: [{2: [{4: [unit]}]}]}, b"M001")

    def add(network: Network) -> None:
        buffer = np.uint32(network.buffer(metadata))
        network.metadata.append({0: "TFLITE_METADATA", 1: buffer})

    spec = import_bytes(tmp_path, tiny_ssd("float32", change=add), overwrite=True).spec.input
    assert spec.mean == pytest.approx((1, 2, 3))
    assert spec.scale == pytest.approx((0.25, 0.2, 0.125))


def test_labels_come_from_the_option_the_file_its_folder_or_numbers(tmp_path: Path) -> None:
    content = tiny_ssd("float32")
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("labelmap.txt", "???\none\ntwo\nthree\n")
    inside = content + archive.getvalue()
    (tmp_path / "own.txt").write_text("a\nb\nc\n")

    def labels(data: bytes, **options: Any) -> tuple[str, ...]:
        return import_bytes(tmp_path, data, overwrite=True, **options).spec.labels

    assert labels(content) == ("background", "class 1", "class 2", "class 3")
    (tmp_path / "labelmap.txt").write_text("x\ny\nz\n")
    assert labels(content) == ("background", "x", "y", "z")
    assert labels(inside) == ("background", "one", "two", "three")
    assert labels(inside, labels=tmp_path / "own.txt") == ("background", "a", "b", "c")
    (tmp_path / "labelmap.txt").write_text("x\ny\n")
    with pytest.raises(UsageError, match=r"labelmap.txt' has 2 names, .* 4 score columns"):
        labels(content)


def test_scores_without_background(tmp_path: Path) -> None:
    content = tiny_ssd("float32", {**POST_PROCESSING, "num_classes": 4})
    (tmp_path / "own.txt").write_text("???\na\nb\nc\nd\n")
    assert import_bytes(tmp_path, content).spec.labels[0] == "class 1"
    spec = import_bytes(tmp_path, content, labels=tmp_path / "own.txt", overwrite=True).spec
    assert spec.background is None
    assert spec.labels == ("a", "b", "c", "d")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({**POST_PROCESSING, "num_classes": 7}, "has 4 score columns for 7 classes"),
        ({**POST_PROCESSING, "x_scale": 0.0}, "which are not positive"),
        ({"num_classes": 3}, "has no option 'x_scale'"),
    ],
)
def test_post_processing_that_does_not_fit(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        import_bytes(tmp_path, tiny_ssd("float32", options))
    assert not (tmp_path / "new.onnx").exists()


def test_other_networks_are_refused_in_one_sentence(tmp_path: Path) -> None:
    network = Network()
    image = network.tensor("image", [1, ROWS, COLUMNS, 3])
    end = network.operator("RESHAPE", [image], [network.tensor("rows", [1, 390])])
    with pytest.raises(ModelError, match="has no operator TFLite_Detection_PostProcess; only"):
        import_bytes(tmp_path, network.build(image, [end]))

    def pool(network: Network) -> None:
        network.operator("CAST", [0], [network.tensor("pooled", [1, 1, 1, 3])])
        network.operators.insert(0, network.operators.pop())

    with pytest.raises(ModelError, match=r"contains CAST, which cannot be imported; supp"):
        import_bytes(tmp_path, tiny_ssd("float32", change=pool))


def test_network_that_normalizes_its_input_needs_a_description(tmp_path: Path) -> None:
    def scale_input(network: Network) -> None:
        factor = network.tensor("factor", [1], values=np.full(1, 0.5, np.float32))
        scaled = network.tensor("scaled", [1, ROWS, COLUMNS, 3])
        network.operators[0][1][0] = scaled
        network.operator("MUL", [0, factor], [scaled])
        network.operators.insert(0, network.operators.pop())

    content = tiny_ssd("float32", change=scale_input)
    with pytest.raises(UsageError, match=r"normalizes its input itself \(MUL\); set `spec`"):
        import_bytes(tmp_path, content)
    description = tmp_path / "spec.json"
    description.write_text(json.dumps({"input": {"mean": [0, 0, 0], "scale": [1, 1, 1]}}))
    model = import_bytes(tmp_path, content, spec=description)
    assert model.spec.input.scale == pytest.approx((1, 1, 1))
    plain = import_bytes(tmp_path, tiny_ssd("float32"), overwrite=True)
    batch = image_batch(plain.spec)
    for head, expected in zip(model.heads(2 * batch), plain.heads(batch), strict=True):
        np.testing.assert_allclose(head, expected, atol=1e-5)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    content = tiny_ssd("float16")
    random = np.random.default_rng(0)
    (tmp_path / "model.tflite").write_bytes(b"PK" + content)
    with pytest.raises(ModelError, match="is not a TFLite model"):
        import_model(tmp_path / "model.tflite", tmp_path / "new.onnx")
    refused = 0
    for _ in range(60):
        damaged = bytearray(content[: random.integers(8, len(content))])
        for position in random.integers(8, len(damaged), 20):
            damaged[position] = random.integers(0, 256)
        try:
            import_bytes(tmp_path, bytes(damaged), overwrite=True)
        except (ModelError, UsageError):
            refused += 1
    assert refused > 50


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "dilation", "expected"),
    [
        (300, 3, 2, 1, (0, 1)),
        (19, 3, 2, 1, (1, 1)),
        (10, 5, 1, 1, (2, 2)),
        (10, 3, 1, 2, (2, 2)),
        (5, 1, 2, 1, (0, 0)),
        (4, 4, 1, 1, (1, 2)),
    ],
)
def test_same_padding(
    size: int, kernel: int, stride: int, dilation: int, expected: tuple[int, int]
) -> None:
    assert same_padding(size, kernel, stride, dilation) == expected


def test_the_file_has_opset_17_and_any_batch_size(tmp_path: Path) -> None:
    model = import_bytes(tmp_path, tiny_ssd("int8_weights"))
    assert onnx.load(tmp_path / "new.onnx").opset_import[0].version == 17
    batch = np.concatenate([image_batch(model.spec)] * 3)
    assert [head.shape for head in model.heads(batch)] == [(3, 88, 4), (3, 88, 4)]


def test_torch_is_not_needed(tmp_path: Path) -> None:
    (tmp_path / "model.tflite").write_bytes(tiny_ssd("float32"))
    code = (
        "import sys; sys.modules['torch'] = sys.modules['tensorflow'] = None; "
        "from realtime_ssd.cli import main; main()"
    )
    arguments = ("import", tmp_path / "model.tflite", "--output", tmp_path / "new.onnx")
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "13x10, 88 default boxes, 4 score columns, any batch size" in done.stdout
    assert "labels: background, class 1, class 2, class 3 (numbered" in done.stdout
