"""Write tflite_oracle.json: what TFLite's own interpreter computes for the networks of the tests.

Run it in an environment with tflite-runtime and flatbuffers:
python -m tests.training.importers.make_tflite_oracle
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from tests.training.importers.tflite_builder import COLUMNS, ROWS, Precision, tiny_ssd


def compute(precision: Precision) -> dict[str, Any]:
    """Return heads and detections of one network for a fixed image."""
    from tflite_runtime.interpreter import Interpreter

    content = tiny_ssd(precision)
    interpreter = Interpreter(model_content=content, experimental_preserve_all_tensors=True)
    interpreter.allocate_tensors()
    pixels = np.random.default_rng(1).integers(0, 256, (1, ROWS, COLUMNS, 3))
    details = interpreter.get_input_details()[0]
    quantized = details["dtype"] is np.int8
    image = pixels - 128 if quantized else (pixels - 127.5) / 127.5
    interpreter.set_tensor(details["index"], image.astype(details["dtype"]))
    interpreter.invoke()
    (end,) = (
        op for op in interpreter._get_ops_details() if op["op_name"].startswith("TFLite_Detection")
    )
    offsets, scores = (interpreter.get_tensor(index)[0] for index in end["inputs"][:2])
    boxes, classes, values, count = (interpreter.get_tensor(index) for index in end["outputs"])
    kept = int(count[0])
    return {
        "offsets": rounded(offsets),
        "scores": rounded(scores),
        "boxes_yxyx": rounded(boxes[0][:kept]),
        "classes": classes[0][:kept].astype(int).tolist(),
        "values": rounded(values[0][:kept]),
    }


def rounded(values: NDArray[np.float32]) -> Any:
    """Return values as lists with five decimals."""
    return np.round(values.astype(np.float64), 5).tolist()


if __name__ == "__main__":
    results = {precision: compute(precision) for precision in get_args(Precision)}
    file = Path(__file__).with_name("tflite_oracle.json")
    file.write_text(json.dumps(results, separators=(",", ":")) + "\n")
