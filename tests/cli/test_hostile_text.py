"""File names and messages from outside reach the terminal, JSON and logs as harmless text."""

from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from realtime_ssd.cli import main
from tests.cli.program import run

NAMES = ("a\x1b[31mred", "b\nnew: line", "c\u202egpj", "d[bold]markup", "e\x9b2J")


def hostile_photos(folder: Path, *, valid: bool) -> list[str]:
    folder.mkdir()
    for name in NAMES:
        path = folder / f"{name}.png"
        cv2.imwrite(str(path), np.zeros((20, 30, 3), np.uint8))
        if not valid:
            path.write_bytes(b"no image")
    return [str(path) for path in sorted(folder.iterdir())]


def check(text: str) -> None:
    assert [line for line in text.splitlines() if not line.isprintable()] == []
    assert "\u202e" not in text


@pytest.mark.parametrize("valid", [True, False])
def test_file_names(tiny: Path, tmp_path: Path, valid: bool) -> None:
    files = hostile_photos(tmp_path / "in", valid=valid)
    arguments = [part for file in files for part in ("--source", file)]
    done = run("detect", *arguments, "--model", str(tiny), "--json", "-")
    check(done.stderr)
    check(done.stdout)
    assert "Traceback" not in done.stderr
    assert done.returncode == (0 if valid else 1)
    if valid:
        records = [json.loads(line) for line in done.stdout.splitlines()]
        assert {Path(record["file"]).stem for record in records} == set(NAMES)
    else:
        assert "\\x1b[31mred" in done.stderr or "\\nnew" in done.stderr


def test_names_that_are_not_utf8(tiny: Path, tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/\xff\xfe.png"
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((20, 30, 3), np.uint8))
    os.rename(tmp_path / "a.png", path)
    done = run("detect", "--source", str(tmp_path), "--model", str(tiny), "--json", "-")
    assert done.returncode == 0, done.stderr
    (record,) = (json.loads(line) for line in done.stdout.splitlines())
    assert record["source"] == str(tmp_path)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--source=NAME"],
        ["detect", "NAME"],
        ["detect", "--NAME"],
        ["NAME"],
        ["detect", "--source", "demo", "--model", "NAME"],
        ["detect", "--source", "demo", "--score-threshold", "NAME"],
    ],
)
def test_arguments(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    for name in NAMES:
        with pytest.raises(SystemExit, match=r"^2$"):
            main([argument.replace("NAME", name) for argument in arguments])
        error = capfd.readouterr().err
        check(error)
        assert len(error.splitlines()) == 1


def test_models_with_hostile_names(tmp_path: Path) -> None:
    for name in NAMES:
        (tmp_path / f"{name}.onnx").write_bytes(b"no model")
    done = run("models", models=tmp_path)
    assert done.returncode == 0
    check(done.stdout)
    assert done.stdout.count("is not a readable ONNX file") == len(NAMES)
