"""Output paths of the training commands are checked before any work."""

from __future__ import annotations

from pathlib import Path

import pytest

from realtime_ssd.cli import main

CASES: tuple[tuple[tuple[str, ...], str], ...] = (
    (("export", "missing.safetensors", "--output", "existing"), "'existing' exists; set --over"),
    (
        ("export", "missing.safetensors", "--output", "folder"),
        "'folder' cannot be written: it is a folder",
    ),
    (
        ("export", "missing.safetensors", "--output", "existing/model.onnx"),
        "existing' is not a folder",
    ),
    (
        ("train", "demo", "--output", "run", "--data", "voc:missing", "--preview", "folder"),
        "'folder' cannot be written: it is a folder",
    ),
    (("import", "model.onnx", "--output", "existing.onnx"), "'existing.onnx' exists; set --over"),
    (
        ("evaluate", "--model", "missing", "--data", "voc:missing", "--json", "existing"),
        "'existing' exists; set --overwrite to replace it",
    ),
    (
        ("evaluate", "--model", "missing", "--data", "voc:missing", "--report", "folder"),
        "errors.png' exists; set --overwrite to replace it",
    ),
)


@pytest.mark.parametrize(("arguments", "message"), CASES)
def test_an_unusable_output_is_refused_before_inputs_are_read(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    files = [tmp_path / name for name in ("existing", "existing.onnx", "folder/errors.png")]
    for file in (*files, tmp_path / "model.onnx"):
        file.write_text("precious")
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    output = capsys.readouterr()
    assert caught.value.code == 2
    assert message in output.err
    assert len(output.err.splitlines()) == 1
    assert {file.read_text() for file in files} == {"precious"}


def test_overwrite_is_passed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "existing.onnx").write_text("precious")
    for arguments in (
        ("export", "missing.safetensors", "--output", "existing.onnx", "--overwrite"),
        ("evaluate", "--model", "gone.onnx", "--data", "demo", "--json", "existing.onnx"),
        ("import", "missing.onnx", "--output", "existing.onnx", "--overwrite"),
    ):
        with pytest.raises(SystemExit):
            main([*arguments, *(["--overwrite"] if arguments[0] == "evaluate" else [])])
        assert "does not exist" in capsys.readouterr().err
    assert (tmp_path / "existing.onnx").read_text() == "precious"
