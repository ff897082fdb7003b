"""Options of `detect` for boxes and labels."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from realtime_ssd import Detector, annotate
from realtime_ssd.annotators import BoxAnnotator
from realtime_ssd.cli import main
from tests.tiny import bright_cell


@pytest.mark.parametrize(
    ("options", "annotator"),
    [
        ([], BoxAnnotator()),
        (["--labels", "class", "--font-size", "20"], BoxAnnotator(labels="class", font_size=20)),
        (["--hide-scores", "--line-width", "4"], BoxAnnotator(scores=False, line_width=4)),
        (["--labels", "none"], BoxAnnotator(labels="none")),
    ],
)
def test_options_select_what_is_drawn(
    tiny: Path, tmp_path: Path, options: list[str], annotator: BoxAnnotator
) -> None:
    photo, output = tmp_path / "photo.png", tmp_path / "out.png"
    image = bright_cell((1, 1))
    cv2.imwrite(str(photo), image)
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["--source", str(photo), "--model", str(tiny), "--output", str(output), *options])
    with Detector(tiny) as detector:
        expected = annotate(image, detector(image), [annotator])
    np.testing.assert_array_equal(cv2.imread(str(output)), expected)


def test_wrong_width_is_reported_before_the_model_is_read(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["--source", "demo", "--model", "missing.onnx", "--line-width", "0"])
    assert raised.value.code == 2
    message = "realtime-ssd: --line-width must be between 1 and 100 pixels, not 0\n"
    assert capsys.readouterr().err == message
