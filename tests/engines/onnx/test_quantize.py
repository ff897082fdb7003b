"""INT8 quantisation of ONNX graphs."""

from __future__ import annotations

import logging
from pathlib import Path

import cv2
import onnx
import pytest
from onnx import numpy_helper
from realtime_ssd_engines.onnx.quantize import quantize

from realtime_ssd.core.errors import UsageError
from realtime_ssd.core.spec import read_spec
from tests.tiny import bright_cell


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for cell in range(4):
        cv2.imwrite(str(folder / f"{cell}.png"), bright_cell((cell, cell)))
    return folder


@pytest.mark.parametrize("symmetric", [True, False])
def test_weights_have_one_scale_per_channel(
    model: Path, photos: Path, tmp_path: Path, symmetric: bool
) -> None:
    output = tmp_path / "int8.onnx"
    assert quantize(model, output, photos, symmetric=symmetric) == 4
    graph = onnx.load(str(output)).graph
    values = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    assert values["w_scale"].shape == (2,)
    zero_points = [value for name, value in values.items() if name.endswith("zero_point")]
    if symmetric:
        assert not any(value.any() for value in zero_points)


def test_the_specification_and_the_log_level_are_preserved(
    model: Path, photos: Path, tmp_path: Path
) -> None:
    level = logging.getLogger().level
    quantize(model, tmp_path / "int8.onnx", photos)
    assert read_spec(tmp_path / "int8.onnx") == read_spec(model)
    assert logging.getLogger().level == level


def test_a_missing_folder_raises_usage_error(model: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a folder of calibration images"):
        quantize(model, tmp_path / "int8.onnx", tmp_path / "missing")
