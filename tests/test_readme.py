"""What the README and the docstrings show works."""

from __future__ import annotations

import doctest
import re
from importlib import import_module
from pathlib import Path

import pytest

from realtime_ssd import Detector
from tests.cli.program import run
from tests.videos import readable

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_first_command_writes_a_video(tmp_path: Path) -> None:
    command = blocks("bash")[0].strip().split("&&")[1].split()
    assert command[0] == "realtime-ssd"
    done = run(*command[1:], "--max-frames", "20", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "using the bundled model" in done.stderr
    frames, problem = readable(tmp_path / "street.mp4")
    assert (len(frames), problem) == (20, "")


@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_python_examples(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(blocks("python")[number], "README.md", "exec"), {})  # noqa: S102
    assert "label" in capsys.readouterr().out


def test_commands_exist() -> None:
    words = re.findall(r"^realtime-ssd (\w+)", "\n".join(blocks("bash")), re.MULTILINE)
    listed = run("--help").stdout
    assert words
    assert all(f" {word} " in listed for word in words)


@pytest.mark.parametrize(
    "module",
    [
        "realtime_ssd.core.detections",
        "realtime_ssd.detector",
        "realtime_ssd.core.errors",
        "realtime_ssd.core.metrics",
        "realtime_ssd.sources",
        "realtime_ssd_training.data.classes",
        "realtime_ssd_training.engine.matching",
        "realtime_ssd_training.models",
    ],
)
def test_docstring_examples(module: str) -> None:
    result = doctest.testmod(import_module(module))
    assert result.attempted > 0
    assert result.failed == 0


def test_the_bundled_model_finds_the_street() -> None:
    from realtime_ssd.synthetic import StreetScene

    image, truth = StreetScene(640, 360, seed=905).frame(110)
    wanted = {item.label for item in truth if not item.difficult}
    with Detector("street") as detector:
        found = {one.label for one in detector(image)}
    assert wanted
    assert wanted <= found | {"person", "cyclist"}
