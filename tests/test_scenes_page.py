"""The commands and the Python code of docs/scenes.md."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.cli.program import run

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "scenes.md").read_text(encoding="utf-8")
COMMANDS = [
    line
    for block in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)
    for line in block.splitlines()
    if "--camera" not in line and " zones " not in line
]


def test_python_code_runs() -> None:
    pytest.importorskip("trackers")
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(code, "scenes.md", "exec"), {})  # noqa: S102


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_run(command: str, tmp_path: Path) -> None:
    pytest.importorskip("trackers")
    (tmp_path / "zones.toml").write_text("[lines]\ngate = [[10, 60], [150, 60]]\n")
    replaced = command.replace("street.mp4", "demo:640x360,frames=20").replace("--dwell 10 ", "")
    program, *arguments = shlex.split(replaced)
    assert program == "realtime-ssd"
    finished = run(*arguments, cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr
    outputs = {"--output", "--json", "--counts", "--heatmap"} & set(arguments)
    for option in outputs:
        assert (tmp_path / arguments[arguments.index(option) + 1]).stat().st_size
