"""Fixtures shared by all tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tiny import tiny_model

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With `-m gpu`, import only modules with such tests: others need more packages."""
    if config.option.markexpr == "gpu" and collection_path.suffix == ".py":
        return "mark.gpu" not in collection_path.read_text(encoding="utf-8") or None
    return None


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real data next to the checkout; tests that need it are skipped without it."""
    if not SHARED.is_dir():
        pytest.skip("the folder ../shared/data with real clips and weights is absent")
    return SHARED


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ONNX file of the tiny model for bright cells."""
    return tiny_model(tmp_path_factory.mktemp("tiny") / "tiny.onnx")


@pytest.fixture(scope="session")
def coco_model(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ONNX file of the COCO MobileNet SSD, imported."""
    from realtime_ssd_training.importers import ImportOptions, import_model

    file = shared_data / "weights/ssd_mobilenet_v1_coco_onnx/ssd_mobilenet_v1_coco_300.onnx"
    output = tmp_path_factory.mktemp("coco") / "mobilenet.onnx"
    import_model(file, output, ImportOptions())
    return output
