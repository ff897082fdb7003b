"""Reads mutated files in a process of its own: `python -m tests.fuzz.worker KIND FIRST COUNT`.

Writes one line per input to standard output: its number and the outcome. A crash or a hang ends the
process, so that the last number is that of the input which caused it.
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from realtime_ssd.core.errors import RealtimeSSDError
from tests.fuzz.formats import DATASETS, IMAGES, VIDEOS
from tests.fuzz.mutations import (
    mutate_bytes,
    mutate_json,
    mutate_onnx,
    mutate_png,
    mutate_safetensors,
    mutate_text,
)
from tests.fuzz.samples import write_sample

HANG, MEMORY = 20, 4 * 2**30
"""Seconds that an input may take, and bytes of address space."""
_UNCHANGED = 0.03  # of the inputs, so that successes show that the sample is valid
_TEXT = frozenset({"toml", "voc", "yolo", "yaml"})
_JSON = frozenset({"spec", "anchors", "benchmark", "coco"})


def read_frames(path: Path) -> None:
    """Read a video or an image as the program does, and copy its sound and subtitles."""
    from realtime_ssd import open_source
    from realtime_ssd.core.detections import Detections
    from realtime_ssd.core.results import FrameResult
    from realtime_ssd.sinks.video import VideoSink

    with open_source(path) as source:
        sink = None
        try:
            while (frame := source.read()) is not None and frame.index < 50:
                assert frame.image.shape == (frame.height, frame.width, 3)
                if sink is None and not source.info.still:
                    sink = VideoSink(path.with_name("out.mkv"), source.info, overwrite=True)
                if sink is not None:
                    sink.write(FrameResult(frame, Detections.empty()))
        finally:
            if sink is not None:
                sink.close()


def run_model(path: Path) -> None:
    """Run a model on one image."""
    from realtime_ssd import Detector
    from tests.tiny import bright_cell

    with Detector(path, backend="onnxruntime") as detector:
        detector(bright_cell((1, 2)))


def _read_checkpoint(path: Path) -> None:
    from realtime_ssd_training.models.checkpoint import load_model

    load_model(path)


def _read_recipe(path: Path) -> None:
    from realtime_ssd_training.recipe import load_recipe

    load_recipe(str(path.rename(path.with_name("m.toml"))))


def _read_spec(path: Path) -> None:
    from realtime_ssd_training.importers import ImportOptions
    from realtime_ssd_training.importers.spec_overrides import apply_overrides

    from tests.tiny import tiny_spec

    apply_overrides(tiny_spec(), ImportOptions(spec=path))


def _read_anchors(path: Path) -> None:
    from realtime_ssd_training.importers import ImportOptions
    from realtime_ssd_training.importers.spec_overrides import apply_overrides

    from tests.tiny import tiny_spec

    named = path.rename(path.with_name("m.json"))
    apply_overrides(tiny_spec(), ImportOptions(anchors=named))


def _compare_benchmarks(path: Path) -> None:
    from realtime_ssd.profiling.compare import changed_settings, compare, read_result

    result = read_result(path)
    original = json.loads(path.with_name("sample.benchmark").read_text())
    compare(original, result)
    changed_settings(original, result)


def _read_dataset(spec: str) -> Callable[[Path], None]:
    def read(path: Path) -> None:
        from realtime_ssd_training.data import open_dataset

        data = open_dataset(spec.format(folder=path.parent))
        for index in range(min(len(data), 3)):
            data.annotation(index)
            data[index]

    return read


_READERS: dict[str, Callable[[Path], None]] = {
    **dict.fromkeys((*VIDEOS, *IMAGES), read_frames),
    "onnx": run_model,
    "safetensors": _read_checkpoint,
    "toml": _read_recipe,
    "spec": _read_spec,
    "anchors": _read_anchors,
    "benchmark": _compare_benchmarks,
    "coco": _read_dataset("coco:{folder}/a.json:{folder}/images"),
    "voc": _read_dataset("voc:{folder}/.."),
    "yolo": _read_dataset("yolo:{folder}/.."),
    "yaml": _read_dataset("yolo:{folder}"),
}


def _mutate(kind: str, content: bytes, chance: random.Random) -> bytes:
    if chance.random() < _UNCHANGED:
        return content
    if kind == "onnx" and chance.random() < 0.7:
        return mutate_onnx(content, chance)
    if kind in _JSON and chance.random() < 0.7:
        return json.dumps(mutate_json(json.loads(content), chance)).encode()
    if kind == "png" and chance.random() < 0.7:
        return mutate_png(content, chance)
    if kind == "safetensors":
        return mutate_safetensors(content, chance)
    if kind in _TEXT and chance.random() < 0.7:
        return mutate_text(content, chance)
    return mutate_bytes(content, chance)


def _planted(number: int) -> Callable[[Path], None] | None:
    """Return a reader with a fault, for the tests of the runner."""
    faults = os.environ.get("REALTIME_SSD_FUZZ_FAULTS", "")
    fault = dict(item.split("=") for item in faults.split(",") if item).get(str(number))
    return None if fault is None else partial(_fail, fault)


def _fail(fault: str, _: Path) -> None:
    if fault == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if fault == "hang":
        signal.alarm(1)
        signal.pause()
    raise ValueError("planted")


def _outcome(read: Callable[[Path], None], path: Path) -> str:
    try:
        read(path)
    except RealtimeSSDError as error:
        message = str(error)
        return "sentence" if message.isprintable() else f"unprintable: {message!a}"
    except MemoryError:
        return "memory"
    except Exception as error:
        return f"{type(error).__name__}: {error!s:.200}".replace("\n", " ")
    return "success"


def main(kind: str, first: int, count: int) -> None:
    """Read `count` mutations of a format, from number `first`."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sample = write_sample(kind, folder)
        content = sample.read_bytes()
        target = sample if kind in DATASETS else folder / f"m.{kind}"
        for number in range(first, first + count):
            _print(f"{number} ")
            target.write_bytes(_mutate(kind, content, random.Random(number)))
            signal.alarm(HANG)
            outcome: Any = _outcome(_planted(number) or _READERS[kind], target)
            signal.alarm(0)
            _print(f"{outcome}\n")


def _print(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
