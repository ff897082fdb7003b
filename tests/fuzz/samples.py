"""Small valid files of every format, which the fuzzers mutate."""

from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import onnx
from onnx import helper

from realtime_ssd.core.frames import Image
from tests.fuzz.formats import IMAGES, VIDEOS
from tests.tiny import tiny_model
from tests.training.data.builders import voc_object, write_coco, write_voc

__all__ = ["write_sample"]

_CODECS = {"avi": "mpeg4", "webm": "libvpx"}
_SOUND = {"avi": "mp3", "webm": "libopus"}


def write_sample(kind: str, folder: Path) -> Path:
    """Write a valid file of a format and return it; for datasets, the annotation file."""
    path = folder / f"sample.{kind}"
    if kind in VIDEOS:
        _write_video(path)
    elif kind in IMAGES:
        cv2.imwrite(str(path), _image(7))
    else:
        path = _WRITERS[kind](path)
    return path


def _image(seed: int) -> Image:
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return np.asarray(cv2.resize(small, (64, 48)), np.uint8)


def _write_video(path: Path) -> None:
    kind = path.suffix[1:]
    metadata = {"title": "Ä street", "comment": "x" * 40, "language": "deu"}
    with av.open(str(path), "w") as container:
        container.metadata.update(metadata)
        stream = container.add_stream(_CODECS.get(kind, "libx264"), 25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        sound = container.add_stream(_SOUND.get(kind, "aac"), 48000, layout="mono")
        for number in range(8):
            frame = av.VideoFrame.from_ndarray(_image(number), format="bgr24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        for start in range(0, 9600, 960):
            tone = av.AudioFrame(format="s16", layout="mono", samples=960)
            tone.planes[0].update(bytes(1920))
            tone.sample_rate, tone.pts = 48000, start
            container.mux(sound.encode(tone))
        container.mux(sound.encode())


def _write_onnx(path: Path) -> Path:
    tiny_model(path)
    model = onnx.load(str(path))
    size = helper.make_tensor("v", onnx.TensorProto.INT64, [4], [1, 3, 8, 8])
    model.graph.node.append(helper.make_node("Constant", [], ["size"], value=size))
    model.graph.node.append(helper.make_node("Resize", ["image", "", "", "size"], ["small"]))
    onnx.save(model, str(path))
    return path


def _write_checkpoint(path: Path) -> Path:
    from realtime_ssd_training.models import create
    from realtime_ssd_training.models.checkpoint import save_checkpoint

    network = create("ssd300_mobilenet_v1", ["background", "car"], width=0.1)
    save_checkpoint(path, network, metadata={"epoch": 7})
    return path


def _write_recipe(path: Path) -> Path:
    from realtime_ssd_training.recipe import FOLDER

    path.write_bytes((FOLDER / "demo.toml").read_bytes())
    return path


def _write_spec(path: Path) -> Path:
    fields = {"labels": ["background", "a"], "thresholds": {"score": 0.3}}
    fields["input"] = {"mean": [1, 2, 3], "scale": [1, 1, 1], "channels": "RGB"}
    path.write_text(json.dumps(fields))
    return path


def _write_anchors(path: Path) -> Path:
    path.write_text(json.dumps([[0.5, 0.5, 0.1, 0.2]] * 16))
    return path


def _write_benchmark(path: Path) -> Path:
    row = {"what": "network", "batch": 1, "value": 2.0, "unit": "ms", "noise": 0.1, "fps": 500}
    machine = {"cpu": "x", "cores": 2, "gpus": [], "packages": {}, "python": "3", "driver": ""}
    content = {"benchmark": "realtime-ssd", "rows": [row], "machine": machine, "streams": 1}
    content["model"] = {"sha256": "0" * 64}
    content |= {"backend": "a", "precision": "fp32", "source": "demo", "picture": [1, 2]}
    path.write_text(json.dumps(content))
    return path


def _write_coco(path: Path) -> Path:
    write_coco(path.parent, [{"id": 1, "category_id": 3, "bbox": [1, 2, 10, 8], "iscrowd": 0}])
    return path.parent / "a.json"


def _write_voc(path: Path) -> Path:
    write_voc(path.parent, "a", voc_object("cat", (1, 2, 20, 18)))
    return path.parent / "Annotations" / "a.xml"


def _write_yolo(path: Path) -> Path:
    (path.parent / "images").mkdir()
    (path.parent / "labels").mkdir()
    cv2.imwrite(str(path.parent / "images/a.png"), _image(1))
    (path.parent / "data.yaml").write_text("names: [cat, dog]\ntrain: images\nval: images\n")
    labels = path.parent / "labels/a.txt"
    labels.write_text("0 0.5 0.5 0.2 0.3\n1 0.1 0.2 0.05 0.07\n")
    return labels


def _write_yaml(path: Path) -> Path:
    _write_yolo(path)
    return path.parent / "data.yaml"


_WRITERS: dict[str, Callable[[Path], Path]] = {
    "onnx": _write_onnx,
    "safetensors": _write_checkpoint,
    "toml": _write_recipe,
    "spec": _write_spec,
    "anchors": _write_anchors,
    "benchmark": _write_benchmark,
    "coco": _write_coco,
    "voc": _write_voc,
    "yolo": _write_yolo,
    "yaml": _write_yaml,
}
