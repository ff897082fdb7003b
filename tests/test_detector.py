"""The Python interface: `Detector` and `open_source`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image as Pil

from realtime_ssd import Detections, Detector, Frame, open_source
from realtime_ssd.backends.onnxruntime import OnnxRuntimeBackend
from realtime_ssd.core.errors import SourceError, UsageError
from realtime_ssd.core.frames import Image
from realtime_ssd.sources.base import BaseSource, SourceInfo
from tests.tiny import bright_cell, tiny_model, tiny_spec
from tests.videos import make_video

CELLS = [(row, column) for row in range(4) for column in range(4)]


def boxes(detections: Detections) -> list[list[float]]:
    return [[round(value) for value in item.box] for item in detections]


def colored() -> Image:
    """Return an image that is bright in blue only in one cell and in red only in another."""
    image = bright_cell((0, 0))
    image[..., 1:] = 0
    image[90:, 120:, 2] = 255
    return image


@pytest.fixture
def blue_detector(tmp_path: Path) -> Path:
    """A model that looks at the blue channel only."""
    spec = tiny_spec()
    blue = replace(spec, input=replace(spec.input, scale=(3 / 255, 1e-9, 1e-9)))
    return tiny_model(tmp_path / "blue.onnx", blue)


def test_image_is_not_changed(tiny: Path) -> None:
    image = bright_cell((1, 2))
    before = image.copy()
    with Detector(tiny) as detector:
        detections = detector(image)
        assert np.array_equal(image, before)
        assert image.flags.writeable
        best = detections.to_dicts()[0]
        assert best["label"] == "bright"
        assert best["box"] == pytest.approx([80, 30, 120, 60], abs=0.01)
        assert len(detector(np.zeros((50, 60, 3), np.uint8))) == 0


BLUE, BLUE_OR_RED = [[0, 0, 40, 30]], [[0, 0, 40, 30], [120, 90, 160, 120]]


@pytest.mark.parametrize(
    ("convert", "expected"),
    [
        (lambda image: image, BLUE),
        (lambda image: cv2.cvtColor(image, cv2.COLOR_BGR2BGRA), BLUE),
        (lambda image: Pil.fromarray(image[..., ::-1]), BLUE),
        (lambda image: Pil.fromarray(image[..., ::-1]).convert("RGBA"), BLUE),
        (lambda image: Pil.fromarray(image[..., ::-1]).convert("P"), BLUE),
        (lambda image: image.max(axis=2), BLUE_OR_RED),
        (lambda image: image.max(axis=2)[..., None], BLUE_OR_RED),
        (lambda image: Pil.fromarray(image.max(axis=2)), BLUE_OR_RED),
        (lambda image: Pil.fromarray(image.max(axis=2)).convert("1"), BLUE_OR_RED),
        (lambda image: Pil.fromarray(image.max(axis=2)).convert("LA"), BLUE_OR_RED),
        (Frame, BLUE),
    ],
)
def test_kinds_of_images(
    blue_detector: Path, convert: Callable[[Image], Image], expected: list[list[float]]
) -> None:
    with Detector(blue_detector) as detector:
        assert sorted(boxes(detector(convert(colored())))) == expected


def test_alpha_is_ignored(blue_detector: Path) -> None:
    transparent = np.dstack([colored(), np.zeros((120, 160), np.uint8)])
    rgba = Pil.fromarray(np.ascontiguousarray(transparent[..., [2, 1, 0, 3]]))
    with Detector(blue_detector) as detector:
        assert [boxes(item) for item in detector([transparent, rgba])] == [BLUE, BLUE]


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((50, 60, 2), np.uint8),
        np.zeros((50, 60, 3), np.float32),
        np.zeros((1, 50, 60, 3), np.uint8),
        np.zeros(50, np.uint8),
        np.zeros((0, 60, 3), np.uint8),
        Pil.new("I;16", (60, 50)),
        Pil.new("F", (60, 50)),
        Pil.new("RGB", (0, 50)),
        None,
    ],
)
def test_other_images_are_rejected(tiny: Path, image: Image) -> None:
    with Detector(tiny) as detector, pytest.raises(ValueError, match="`image` must "):
        detector(image)


def test_image_files(blue_detector: Path, tmp_path: Path) -> None:
    path = tmp_path / "a[1].png"
    Pil.fromarray(colored()[..., ::-1]).save(path)
    (tmp_path / "b.png").write_bytes(b"damaged")
    with Detector(blue_detector) as detector:
        assert boxes(detector(path)) == boxes(detector(str(path))) == BLUE
        with pytest.raises(SourceError, match=r"b\.png' cannot be read as an image"):
            detector(tmp_path / "b.png")
        for missing in (tmp_path, tmp_path / "c.png"):
            with pytest.raises(UsageError, match="does not exist"):
                detector(missing)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("count", [0, 1, 16])
def test_list_of_images_in_order(tiny: Path, tmp_path: Path, batch: int, count: int) -> None:
    cv2.imwrite(str(tmp_path / "first.png"), bright_cell(CELLS[0]))
    images: list[Path | Image] = [tmp_path / "first.png"]
    images = [*images, *(bright_cell(cell) for cell in CELLS[1:])][:count]
    with Detector(tiny, batch=batch) as detector:
        for sequence in (detector(images), detector(tuple(images))):
            found = [boxes(item)[0][:2] for item in sequence]
            assert found == [[40 * column, 30 * row] for row, column in CELLS[:count]]


def test_detector_works_after_an_error_within_a_list(tiny: Path) -> None:
    with Detector(tiny) as detector:
        with pytest.raises(ValueError, match="`image` must be"):
            detector([*(bright_cell(cell) for cell in CELLS), None])  # type: ignore[list-item]
        assert len(detector(bright_cell((0, 0)))) == 1


def test_one_detector_in_several_threads(tiny: Path) -> None:
    found: dict[tuple[int, int], list[list[float]]] = {}
    with Detector(tiny) as detector:

        def detect(cell: tuple[int, int]) -> None:
            for _ in range(5):
                found[cell] = boxes(detector(bright_cell(cell)))

        threads = [threading.Thread(target=detect, args=(cell,)) for cell in CELLS]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert {cell: box[:2] for cell, (box,) in found.items()} == {
        (row, column): [40 * column, 30 * row] for row, column in CELLS
    }


def test_streams_one_after_the_other(tiny: Path, tmp_path: Path) -> None:
    video = make_video(tmp_path / "a.mp4", [1001 * k for k in range(6)])
    with Detector(tiny, score_threshold=0.2, classes=["bright"]) as detector:
        assert detector.spec.thresholds.score_threshold == 0.2
        frames = [frame.index for frame, _ in detector.stream(video)]
        assert frames == list(range(6))
        with open_source(video) as source:
            assert len(list(detector.stream(source, max_frames=2))) == 2
        for _frame, _detections in detector.stream(video):
            break
        assert len(detector(bright_cell((0, 0)))) == 1


def test_call_during_a_stream_is_rejected(tiny: Path, tmp_path: Path) -> None:
    video = make_video(tmp_path / "a.mp4", [1001 * k for k in range(6)])
    with Detector(tiny) as detector:
        running = detector.stream(video)
        next(running)
        with pytest.raises(UsageError, match="second Detector"):
            detector(bright_cell((0, 0)))
        with pytest.raises(UsageError, match="second Detector"):
            next(detector.stream(video))
        running.close()
        assert len(detector(bright_cell((0, 0)))) == 1


def test_closing_closes_the_backend(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(OnnxRuntimeBackend, "close", lambda _: calls.append("close"))
    with Detector(tiny, backend="onnxruntime"):
        assert calls == []
    assert calls == ["close"]


def test_closed_detector_is_rejected(tiny: Path, tmp_path: Path) -> None:
    video = make_video(tmp_path / "a.mp4", [1001 * k for k in range(6)])
    detector = Detector(tiny)
    running = detector.stream(video)
    next(running)
    detector.close()
    detector.close()
    for action in (
        lambda: next(running),
        lambda: next(detector.stream(video)),
        lambda: detector(bright_cell((0, 0))),
    ):
        with pytest.raises(UsageError, match=r"^this detector is closed; create a new Detector$"):
            action()


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        ("car", {"car"}),
        ("CAR", {"car"}),
        (["car"], {"car"}),
        (("car", "bus"), {"car", "bus"}),
    ],
)
def test_only_the_chosen_classes_are_detected(classes: str | list[str], expected: set[str]) -> None:
    (frame,) = open_source("demo:frames=1")
    with Detector("street") as detector:
        assert {item.label for item in detector(frame)} > {"car", "bus"}
    with Detector("street", classes=classes) as detector:
        assert {item.label for item in detector(frame)} == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"score_threshold": 2}, "`score_threshold` must be between 0 and 1, not 2"),
        ({"score_threshold": -0.1}, r"`score_threshold` must be between 0 and 1, not -0\.1"),
        ({"iou_threshold": 1.5}, r"`iou_threshold` must be between 0 and 1, not 1\.5"),
        ({"pre_nms_top_k": 0}, "`pre_nms_top_k` must be at least 1, not 0"),
        ({"batch": 0}, "`batch` must be at least 1, not 0"),
        ({"classes": "x"}, "class 'x' is unknown to model 'tiny'; choose from bright"),
        ({"classes": ["brigth"]}, "did you mean 'bright'"),
        ({"backend": "x"}, "backend 'x' is unknown"),
        ({"model": "missing.onnx"}, "model file 'missing.onnx' does not exist"),
    ],
)
def test_wrong_arguments_are_value_errors(
    tiny: Path, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Detector(**{"model": tiny, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [0, 1, 0.5])
def test_thresholds_may_be_at_their_limits(tiny: Path, value: float) -> None:
    with Detector(tiny, score_threshold=value, iou_threshold=value, pre_nms_top_k=1) as detector:
        limits = detector.spec.thresholds
        assert (limits.score_threshold, limits.iou_threshold, limits.pre_nms_top_k) == (
            value,
            value,
            1,
        )


def test_photo_read_by_opencv(coco_model: Path, shared_data: Path) -> None:
    dog = cv2.imread(str(shared_data / "photos/darknet/dog.jpg"))
    assert dog is not None
    with Detector(coco_model) as detector:
        labels = {item.label for item in detector(dog.astype(np.uint8)) if item.score > 0.6}
        assert detector.backend == "onnxruntime"
    assert {"bicycle", "car"} <= labels


def test_iterating_over_a_source(tmp_path: Path) -> None:
    video = make_video(tmp_path / "a.mp4", [1001 * k for k in range(4)])
    assert [frame.index for frame in open_source(video)] == [0, 1, 2, 3]
    source = open_source(video)
    source.read()
    assert [frame.index for frame in source] == [1, 2, 3]
    assert source.read() is None  # closed at the end


class Live(BaseSource):
    """A live source that is lost after two frames."""

    def __init__(self) -> None:
        self.info = SourceInfo("live", live=True)
        self.calls: list[str] = []

    def open(self) -> None:
        self.calls.append("open")

    def read(self) -> Frame | None:
        self.calls.append("read")
        if len(self.calls) > 3:
            raise SourceError("lost")
        return Frame(bright_cell((0, 0)))

    def close(self) -> None:
        self.calls.append("close")


def test_iterating_opens_a_live_source_and_always_closes_it() -> None:
    source = Live()
    frames = iter(source)
    assert source.calls == []
    next(frames)
    next(frames)
    with pytest.raises(SourceError, match="lost"):
        next(frames)
    assert source.calls == ["open", "read", "read", "read", "close"]
