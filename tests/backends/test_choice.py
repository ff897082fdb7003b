"""Choosing a backend and passing the user's options to it."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from realtime_ssd import backends
from realtime_ssd.backends import Backend, BackendOptions, open_backend
from realtime_ssd.backends.onnxruntime import PLUGIN
from realtime_ssd.core.errors import ModelError, UsageError
from realtime_ssd.core.frames import Frame
from realtime_ssd.core.spec import ModelSpec
from realtime_ssd.synthetic import StreetScene
from realtime_ssd.zoo import BUNDLED

STREET = Frame(StreetScene(640, 360, seed=1).render(40))


def labels(options: BackendOptions) -> list[str]:
    with open_backend(BUNDLED, "onnxruntime", options) as backend:
        (detections,) = backend.collect(backend.submit([STREET]))
    return [detection.label for detection in detections]


def test_classes_restrict_what_is_detected() -> None:
    everything = labels(BackendOptions())
    assert len(set(everything)) > 1
    for name in set(everything):
        only = labels(BackendOptions(classes=(name.upper(),)))
        assert set(only) == {name}
        assert only.count(name) >= everything.count(name)


def test_thresholds_reach_the_backend() -> None:
    everything = labels(BackendOptions(score_threshold=0.05))
    assert len(labels(BackendOptions(score_threshold=0.6))) < len(everything)
    assert len(labels(BackendOptions(score_threshold=0.05, iou_threshold=1.0))) > len(everything)
    few = labels(BackendOptions(score_threshold=0.05, pre_nms_top_k=1))
    assert max(few.count(name) for name in set(few)) == 1
    with open_backend(BUNDLED, "onnxruntime", BackendOptions(iou_threshold=0.3)) as backend:
        assert backend.spec.thresholds.iou_threshold == 0.3


def test_score_thresholds_by_class_reach_the_backend() -> None:
    everything = labels(BackendOptions(score_threshold=0.05))
    assert {"car", "person"} < set(everything)
    only_cars = labels(BackendOptions(score_threshold={"Car": 0.05, "*": 1.0}))
    assert only_cars == ["car"] * everything.count("car")
    default = labels(BackendOptions())
    some = labels(BackendOptions(score_threshold={"car": 0.05}))
    assert [name for name in some if name != "car"] == [name for name in default if name != "car"]
    assert labels(BackendOptions(score_threshold={})) == default


@pytest.mark.parametrize(
    ("score", "message"),
    [
        ({"car": 2}, "`score_threshold` must be between 0 and 1 for class 'car', not 2"),
        ({"car": None}, "`score_threshold` must be between 0 and 1 for class 'car', not None"),
        ({"car": float("nan")}, "must be between 0 and 1 for class 'car', not nan"),
        (
            {"cat": 0.5},
            "class 'cat' is unknown to model 'ssd_mobilenet_v1_fpn'; did you mean 'car'",
        ),
        ({"background": 0.5}, "class 'background' is unknown"),
        ("0.5", "`score_threshold` must be between 0 and 1, not '0.5'"),
    ],
)
def test_wrong_score_thresholds_are_errors(score: Any, message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        open_backend(BUNDLED, "onnxruntime", BackendOptions(score_threshold=score))


def test_boxes_of_all_classes_suppress_each_other_on_request() -> None:
    options = BackendOptions(score_threshold=0.05, iou_threshold=0.0)
    everything = labels(options)
    fewer = labels(replace(options, agnostic_nms=True))
    assert set(fewer) <= set(everything)
    assert len(fewer) < len(everything)


class FakePlugin:
    """A backend plug-in that records what it is asked for."""

    engine_suffix, decodes_surfaces, default_precision = ".fake", True, "fp16"

    def __init__(self, priority: int, missing: list[str], error: str = "") -> None:
        self.priority, self._missing, self._error = priority, missing, error
        self.opened: list[str] = []

    def missing(self) -> list[str]:
        return self._missing

    def open(self, path: Path, spec: ModelSpec, options: BackendOptions) -> Backend:
        self.opened.append(path.name)
        if self._error:
            raise ModelError(self._error)
        return PLUGIN.open(path, spec, options)

    def open_engine(self, path: Path, options: BackendOptions) -> Backend:
        self.opened.append(path.name)
        raise ModelError("engine of the fake backend")

    def diagnose(self) -> Iterable[tuple[str, str, str]]:
        return ()


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that replaces the installed backends."""

    def install(**plugins: Any) -> None:
        every = {**plugins, "onnxruntime": PLUGIN}
        monkeypatch.setattr(backends, "plugins", lambda group: every)
        monkeypatch.setattr(backends, "load_plugin", lambda group, name: every[name])

    return install


def test_auto_opens_the_backend_of_highest_priority(install: Any, tiny: Path) -> None:
    low, high = FakePlugin(5, []), FakePlugin(9, [])
    install(low=low, high=high)
    open_backend(tiny).close()
    assert (low.opened, high.opened) == ([], [tiny.name])
    assert backends.best_backend() == "high"
    assert backends.backend_names() == ("auto", "high", "low", "onnxruntime")


def test_auto_skips_backends_that_cannot_run_here(
    install: Any, tiny: Path, caplog: pytest.LogCaptureFixture
) -> None:
    absent = FakePlugin(9, ["a GPU"])
    install(absent=absent)
    caplog.set_level(logging.INFO)
    open_backend(tiny).close()
    assert absent.opened == []
    assert backends.best_backend() == "onnxruntime"
    assert "running on backend 'onnxruntime': 'absent' needs a GPU" in caplog.text


def test_auto_falls_back_when_a_backend_refuses_the_model(
    install: Any, tiny: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = FakePlugin(9, [], "operator X is not supported")
    install(broken=broken)
    open_backend(tiny).close()
    assert broken.opened == [tiny.name]
    assert "backend 'broken' cannot be used: operator X is not supported" in caplog.text
    with pytest.raises(ModelError, match="operator X"):
        open_backend(tiny, "broken")


def test_engine_files_go_to_their_backend(install: Any, tmp_path: Path) -> None:
    fake = FakePlugin(1, [])
    install(fake=fake)
    engine = tmp_path / "model.fake"
    for name in ("auto", "fake"):
        with pytest.raises(ModelError, match="engine of the fake backend"):
            open_backend(engine, name)
    with pytest.raises(UsageError, match="is an engine of backend 'fake', which backend 'onnx"):
        open_backend(engine, "onnxruntime")
    assert fake.opened == ["model.fake", "model.fake"]


def test_surfaces_are_decoded_for_backends_that_take_them(install: Any) -> None:
    install(able=FakePlugin(9, []), absent=FakePlugin(10, ["a GPU"]))
    assert backends.decodes_surfaces("auto")
    assert backends.decodes_surfaces("able")
    assert not backends.decodes_surfaces("absent")
    assert not backends.decodes_surfaces("onnxruntime")
    assert not backends.decodes_surfaces("unknown")


def test_unknown_backend_is_a_usage_error(tiny: Path) -> None:
    with pytest.raises(UsageError, match="backend 'gpu' is unknown; choose one of auto, onnx"):
        open_backend(tiny, "gpu")
