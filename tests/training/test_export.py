"""Export to ONNX: outputs equal PyTorch's at every batch size, or no file is written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto
from realtime_ssd_training.cli.export import export
from realtime_ssd_training.export import export_onnx, first_images, images_of_run
from realtime_ssd_training.models import SSD, create
from realtime_ssd_training.models.checkpoint import save_checkpoint
from realtime_ssd_training.models.conv_blocks import L2Norm
from realtime_ssd_training.models.ssd import FeatureMaps
from torch import Tensor, nn

from realtime_ssd.cli import main
from realtime_ssd.core.boxes import AnchorLayer, AnchorSpec
from realtime_ssd.core.errors import ModelError, RealtimeSSDError, UsageError
from realtime_ssd.core.preprocess import preprocess
from realtime_ssd.core.spec import InputSpec, ModelSpec, Thresholds, read_spec
from realtime_ssd.synthetic import StreetScene
from tests.cli.program import run
from tests.training.tiny_ssd import Squares

LABELS = ("background", "car", "person")
CELLS, SIDE = 4, 32
STREET = [StreetScene(320, 180, seed=seed).render(40) for seed in (1, 2, 3)]


class Maps(FeatureMaps):
    """One feature map of 4 × 4 cells with L2 normalization, as in SSD300, and large features."""

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__()
        self.channels = (16,)
        self.stem = nn.Conv2d(3, 16, SIDE // CELLS, SIDE // CELLS)
        self.norm = L2Norm(16)
        self.gain = gain

    def forward(self, images: Tensor) -> list[Tensor]:
        return [self.norm(self.stem(images) * self.gain)]


class DataDependentMaps(Maps):
    """Has a branch in Python, which tracing cannot capture."""

    def forward(self, images: Tensor) -> list[Tensor]:
        (features,) = super().forward(images)
        return [features * 3.0 if float(images.abs().sum()) > 0 else features]


class FixedBatchMaps(Maps):
    """Bakes the batch size of the trace into the graph."""

    def forward(self, images: Tensor) -> list[Tensor]:
        (features,) = super().forward(images)
        return [features.reshape(int(images.shape[0]), 16, CELLS, CELLS)]


class NaNMaps(Maps):
    """Returns NaN."""

    def forward(self, images: Tensor) -> list[Tensor]:
        return [features / 0.0 * 0.0 for features in super().forward(images)]


def tiny(maps: type[Maps] = Maps, gain: float = 1.0) -> SSD:
    torch.manual_seed(1)
    layer = AnchorLayer(CELLS, CELLS, 1 / CELLS, 1 / CELLS, ((0.3, 0.3), (0.5, 0.2)))
    spec = ModelSpec(
        "tiny",
        InputSpec(SIDE, SIDE, "RGB", mean=(100.0,) * 3, scale=(1 / 64,) * 3),
        AnchorSpec((layer,)),
        LABELS,
        thresholds=Thresholds(score_threshold=0.35, iou_threshold=0.4),
    )
    return SSD(spec, maps(gain), [nn.Conv2d(16, 6, 1)], [nn.Conv2d(16, 8, 1)])


def street_model() -> SSD:
    """Return a small network with batch normalization statistics and therefore nonzero heads."""
    torch.manual_seed(2)
    model = create("ssd_mobilenet_v1_fpn", LABELS, width=0.25, columns=128, rows=128)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 0.9
    images = [torch.from_numpy(preprocess(photo, model.spec.input)) for photo in STREET]
    with torch.no_grad():
        model(torch.stack(images))
    return model.eval()


def vgg() -> SSD:
    torch.manual_seed(3)
    return create("ssd300_vgg16", LABELS)


def run_onnx(path: Path, images: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    outputs = session.run(["scores", "offsets"], {session.get_inputs()[0].name: images})
    return [np.asarray(output) for output in outputs]


# VGG16 in FP32 is covered by the tests of imported checkpoints.
@pytest.mark.parametrize(
    ("build", "precision"),
    [
        (tiny, "fp32"),
        (tiny, "fp16"),
        (street_model, "fp32"),
        (street_model, "fp16"),
        pytest.param(vgg, "fp16", marks=pytest.mark.slow),
    ],
)
def test_exported_network_equals_pytorch_at_any_batch_size(
    build: Callable[[], SSD], precision: str, tmp_path: Path
) -> None:
    model = build().eval()
    path = tmp_path / "model.onnx"
    difference = export_onnx(model, path, precision, STREET[:1])
    assert [item.name for item in tmp_path.iterdir()] == ["model.onnx"]
    images = np.stack([preprocess(photo, model.spec.input) for photo in STREET])
    with torch.no_grad():
        scores, offsets = (head.numpy() for head in model(torch.from_numpy(images)))
    assert np.ptp(scores) > 0.1
    tolerance = {"fp32": 1e-4, "fp16": 2e-2}[precision]
    assert 0 <= difference <= tolerance
    # One batch size suffices for the large network, as the export compares both.
    for batch in (images[1:2],) if build is vgg else (images, images[1:2]):
        outputs = run_onnx(path, batch)
        assert [head.dtype for head in outputs] == [np.float32, np.float32]
        first = 0 if len(batch) == 3 else 1
        expected = scores[first : first + len(batch)], offsets[first : first + len(batch)]
        for actual, head in zip(outputs, expected, strict=True):
            np.testing.assert_allclose(actual, head, tolerance, tolerance)


def test_names_shapes_opset_and_metadata(tmp_path: Path) -> None:
    model, path = street_model(), tmp_path / "new" / "folder" / "model.onnx"
    export_onnx(model, path, "fp16", STREET)
    exported = onnx.load(str(path))
    assert [(item.domain, item.version) for item in exported.opset_import] == [("", 17)]
    boxes = model.spec.num_boxes
    shapes = {
        value.name: [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]
        for value in (*exported.graph.input, *exported.graph.output)
    }
    assert shapes == {
        model.spec.input.name: ["batch", 3, 128, 128],
        "scores": ["batch", boxes, 3],
        "offsets": ["batch", boxes, 4],
    }
    assert "Softmax" not in {node.op_type for node in exported.graph.node}
    spec = read_spec(path)
    assert (spec.scores_output, spec.offsets_output) == ("scores", "offsets")
    assert spec == replace(model.spec, scores_output="scores", offsets_output="offsets")
    kinds = {item.data_type for item in exported.graph.initializer}
    assert TensorProto.FLOAT16 in kinds


def test_l2norm_stays_in_fp32_where_fp16_would_overflow(tmp_path: Path) -> None:
    model, path = tiny(gain=3000.0), tmp_path / "model.onnx"
    export_onnx(model, path, "fp16", STREET)
    graph = onnx.shape_inference.infer_shapes(onnx.load(str(path))).graph
    kinds = {v.name: v.type.tensor_type.elem_type for v in (*graph.value_info, *graph.output)}
    sums = [node for node in graph.node if node.op_type == "ReduceSum"]
    assert len(sums) == 1
    assert kinds[sums[0].input[0]] == kinds[sums[0].output[0]] == TensorProto.FLOAT
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert {kinds[node.output[0]] for node in convolutions} == {TensorProto.FLOAT16}


@pytest.mark.parametrize(
    ("maps", "text"),
    [
        (DataDependentMaps, "differs from PyTorch by"),
        (FixedBatchMaps, "does not run in batches of 1 and 3"),
        (NaNMaps, "differs from PyTorch by nan"),
    ],
)
def test_failed_comparison_keeps_the_existing_file(
    maps: type[Maps], text: str, tmp_path: Path
) -> None:
    path = tmp_path / "model.onnx"
    with pytest.raises(ModelError, match=f"the exported 'tiny' {text}"):
        export_onnx(tiny(maps), path, photos=STREET)
    assert not list(tmp_path.iterdir())
    path.write_text("previous")
    with pytest.raises(ModelError, match="nothing was written"):
        export_onnx(tiny(maps), path, photos=STREET)
    assert [item.read_text() for item in tmp_path.iterdir()] == ["previous"]


def test_a_network_that_fp16_cannot_represent_is_exported_with_force(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    path, checkpoint = tmp_path / "model.onnx", tmp_path / "model.safetensors"
    model = street_model()
    with torch.no_grad():  # scores that FP16 rounds visibly, as in a barely trained network
        for head in model.score_heads:
            for parameter in head.parameters():
                parameter.mul_(3000)
    with pytest.raises(ModelError, match=r"nothing was written: train .* or set `force` to write"):
        export_onnx(model, path, "fp16", STREET)
    assert not path.exists()
    error = export_onnx(model, path, "fp16", STREET, force=True)
    assert error > 0.02
    assert "it was written nevertheless, compare both with evaluate" in caplog.text
    assert read_spec(path).num_boxes == model.spec.num_boxes
    path.unlink()
    save_checkpoint(checkpoint, model)
    with pytest.raises(SystemExit) as stopped:
        main(["export", str(checkpoint), "--output", str(path), "--precision", "fp16"])
    assert stopped.value.code == 1
    assert "or set --force to write it anyway" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped:
        main(["export", str(checkpoint), "--output", str(path), "--precision", "fp16", "--force"])
    assert not stopped.value.code
    assert path.is_file()


def test_force_writes_no_file_with_nan(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="differs from PyTorch by nan"):
        export_onnx(tiny(NaNMaps), tmp_path / "model.onnx", photos=STREET, force=True)
    assert not list(tmp_path.iterdir())


def test_invalid_arguments_are_reported_before_the_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "realtime_ssd_training.export.to_onnx", lambda model: pytest.fail("exported")
    )
    (tmp_path / "file").touch()
    (tmp_path / "folder.onnx").mkdir()
    for name, message in (("file/x.onnx", "is not a folder"), ("folder.onnx", "is a folder")):
        with pytest.raises(UsageError, match=message):
            export_onnx(tiny(), tmp_path / name)
    assert sorted(item.name for item in tmp_path.rglob("*")) == ["file", "folder.onnx"]
    with pytest.raises(UsageError, match="`precision` must be fp32 or fp16, not 'int4'"):
        export_onnx(tiny(), tmp_path / "model.onnx", "int4")


def test_images_of_the_run(tmp_path: Path) -> None:
    metadata = {"recipe": {"data": {"train": "demo:3-4:64x48", "val": f"voc:{tmp_path}/gone"}}}
    images, name = images_of_run(metadata)
    assert name == "demo:3-4:64x48"
    assert [image.shape for image in images] == [(48, 64, 3)] * 4
    joined = "demo:3-3:64x48 + demo:4-4:64x48"
    assert images_of_run({"recipe": {"data": {"train": joined}}})[1] == joined
    for invalid in ({}, {"recipe": None}, {"recipe": {"data": {"val": "", "train": "rubbish"}}}):
        assert images_of_run(invalid) == ([], "")

    def fail(index: int) -> None:
        if index == 1:
            raise RealtimeSSDError("image '1' cannot be decoded; replace or remove it")

    assert len(first_images(Squares(9, fail))) == 3
    assert len(first_images(Squares(1))) == 1


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "best.safetensors"
    save_checkpoint(path, street_model())
    return path


def test_command_exports_and_protects_existing_files(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos, output = tmp_path / "photos", tmp_path / "model.onnx"
    photos.mkdir()
    for number, image in enumerate(STREET):
        cv2.imwrite(str(photos / f"{number}.png"), image)
    (photos / "damaged.png").write_bytes(b"not an image")
    done = run("export", checkpoint, "--output", output, "--photos", photos)
    assert done.returncode == 0, done.stderr
    assert f"PyTorch's on 3 images of {photos}" in done.stdout
    assert "damaged.png" in done.stderr
    assert read_spec(output).labels == LABELS
    output.write_text("existing")
    with pytest.raises(UsageError, match="set `overwrite` to replace it"):
        export(checkpoint, output=output)
    assert output.read_text() == "existing"
    export(checkpoint, output=output, overwrite=True)
    assert "frames of the synthetic street" in capsys.readouterr().out
    assert read_spec(output).num_classes == 3


def test_invalid_arguments_of_the_command(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from safetensors.torch import save_file

    foreign, text, output = (
        tmp_path / "foreign.safetensors",
        tmp_path / "a.pth",
        tmp_path / "x.onnx",
    )
    save_file({"weight": torch.zeros(3)}, foreign)
    text.write_text("not a checkpoint")
    (tmp_path / "empty").mkdir()
    for status, args, message in (
        (1, (foreign,), "is not a checkpoint of this program"),
        (1, (text,), "is not a checkpoint of this program"),
        (2, (tmp_path / "missing.safetensors",), "does not exist"),
        (2, (checkpoint.parent,), "is a folder; use the file best.safetensors in it"),
        (2, (checkpoint, "--precision", "int8"), "--precision must be fp32 or fp16, not 'int8'"),
        (2, (checkpoint, "--photos", tmp_path / "empty"), "contains no photos"),
        (2, (checkpoint, "--photos", tmp_path / "gone.jpg"), "does not exist"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(["export", *map(str, args), "--output", str(output)])
        error = capsys.readouterr().err
        assert (stop.value.code, len(error.splitlines())) == (status, 1), error
        assert message in error
    assert not output.exists()
