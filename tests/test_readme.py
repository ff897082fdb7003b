"""Commands and examples of the README and of docstrings work."""

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


def code_blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_first_command_writes_a_video(tmp_path: Path) -> None:
    command = code_blocks("bash")[0].strip().split("&&")[1].split()
    assert command[0] == "realtime-ssd"
    finished = run(*command[1:], "--max-frames", "20", cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert "using the bundled model" in finished.stderr
    frames, problem = readable(tmp_path / "street.mp4")
    assert (len(frames), problem) == (20, "")


@pytest.mark.parametrize("number", range(len(code_blocks("python"))))
def test_python_examples(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(code_blocks("python")[number], "README.md", "exec"), {})  # noqa: S102
    assert "label" in capsys.readouterr().out


def test_commands_exist() -> None:
    text = "\n".join(code_blocks("bash"))
    commands = re.findall(r"^realtime-ssd (\w+)(?= |$)", text, re.MULTILINE)
    help_text = run("--help").stdout
    assert commands
    assert all(f" {command} " in help_text for command in commands)


def test_options_exist() -> None:
    """Options in the README's text and examples are options of some command."""
    commands = ("detect", "benchmark", "build", "import", "train", "evaluate", "export")
    help_text = "\n".join(run(command, "--help").stdout for command in commands)
    for group, command in (("models", "pull"), ("data", "check"), ("data", "convert")):
        help_text += run(group, command, "--help").stdout
    options = set(re.findall(r"(?<=[ `])--[a-z][a-z-]+", README))
    # `benchmarks` is a module of the repository, `torchrun` and `venv` are programs of others.
    options -= {"--data", "--nproc-per-node", "--system-site-packages"}
    assert {option for option in options if option not in help_text} == set()


def test_linked_files_exist() -> None:
    pages = [ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")]
    for page in [*pages, *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:\s]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


NEED_FILES = {
    f"realtime_ssd_training.{name}"
    for name in (
        "data.augment",
        "data.dataset_factory",
        "engine.loader",
        "evaluation.error_sheet",
        "evaluation.evaluator",
        "evaluation.voc_metrics",
        "importers",
    )
}
"""Modules whose examples read files of the user."""


def modules_with_examples() -> list[str]:
    found = []
    for folder in (ROOT, ROOT / "engines", ROOT / "training"):
        for path in sorted(folder.glob("realtime_ssd*/**/*.py")):
            if ">>> " in path.read_text(encoding="utf-8"):
                name = ".".join(path.relative_to(folder).with_suffix("").parts)
                found.append(name.removesuffix(".__init__"))
    return [name for name in found if name not in NEED_FILES]


@pytest.mark.parametrize("module", modules_with_examples())
def test_docstring_examples(module: str) -> None:
    result = doctest.testmod(import_module(module))
    assert result.attempted > 0
    assert result.failed == 0


def test_bundled_model_detects_the_street() -> None:
    from realtime_ssd.synthetic import StreetScene

    image, objects = StreetScene(640, 360, seed=905).frame(110)
    expected = {item.label for item in objects if not item.difficult}
    with Detector("street") as detector:
        detected = {detection.label for detection in detector(image)}
    assert expected
    assert expected <= detected | {"person", "cyclist"}
