"""The words of `--help` and of errors about a wrong command line."""

from __future__ import annotations

import re
import subprocess

import pytest

from realtime_ssd.cli import main
from realtime_ssd.cli.command import commands

GROUPS = {
    "models": ("list", "info", "pull", "add", "remove"),
    "engines": ("list", "remove", "verify"),
    "data": ("check", "convert"),
}
PAGES = [
    *(name for name in commands() if name not in GROUPS),
    *(f"{group} {name}" for group, names in GROUPS.items() for name in names),
]


def output_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Return the exit status and both outputs of the program."""
    with pytest.raises(SystemExit) as raised:
        main(list(arguments))
    captured = capsys.readouterr()
    return int(str(raised.value.code or 0)), captured.out, captured.err


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")


@pytest.mark.parametrize("page", PAGES)
def test_every_option_has_a_default_and_a_word_for_its_value(
    page: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, text, _ = output_of(capsys, *page.split(), "--help")
    assert status == 0
    assert not re.search(r"\[ARGS|\bSTR\b|\bINT\b|\bFLOAT\b", text)
    options = [line for line in text.splitlines() if re.match(r"│[ *]*[A-Z ]*--", line)]
    lacking = [line for line in options if not re.search("required|default", line)]
    assert lacking == []


@pytest.mark.parametrize("page", PAGES)
def test_the_example_is_one_of_the_command(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    _, text, _ = output_of(capsys, *page.split(), "--help")
    examples = re.findall(r"Example: (realtime-ssd .*)", text)
    assert len(examples) <= 1
    for example in examples:
        assert example.strip().startswith(f"realtime-ssd {page.removeprefix('detect')}".strip())


def test_own_commands_have_examples() -> None:
    assert [name for name in ("detect", "train", "build") if not commands()[name].example] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("demo --conf 0.5", "detect has no option --conf; did you mean --score-threshold"),
        ("demo --conf=0.5", "detect has no option --conf; did you mean --score-threshold"),
        (
            "demo --conf-thres 1",
            "detect has no option --conf-thres; did you mean --score-threshold",
        ),
        ("demo --weights x", "detect has no option --weights; did you mean --model"),
        ("evaluate --weights x", "evaluate has no option --weights; did you mean --model"),
        ("export --weights x", "export has no option --weights; did you mean --checkpoint"),
        ("demo --iou 0.5", "detect has no option --iou; did you mean --iou-threshold"),
        ("demo --view-img", "detect has no option --view-img; did you mean --show"),
        ("demo --hide-conf", "detect has no option --hide-conf; did you mean --hide-scores"),
        ("demo --line_thickness 3", "no option --line_thickness; did you mean --line-width"),
        ("demo --imgsz 640", "no option --imgsz; the model file determines the input size"),
        ("demo --score-treshold 1", "no option --score-treshold; did you mean --score-threshold"),
        ("demo --zzz", "detect has no option --zzz; see realtime-ssd detect --help"),
        ("train custom --batch-size 3", "train has no option --batch-size; did you mean --batch"),
        ("train custom", "train requires --output; see realtime-ssd train --help"),
        ("demo --batch x", "--batch must be a whole number, not 'x'"),
        ("demo --iou-threshold x", "--iou-threshold must be a number, not 'x'"),
        ("demo --model", "--model requires a value"),
        ("detcet demo", "there is no command 'detcet'; did you mean 'realtime-ssd detect'"),
        ("trian --data x", "there is no command 'trian'; did you mean 'realtime-ssd train'"),
        ("TRAIN x", "there is no command 'TRAIN'; did you mean 'realtime-ssd train'"),
        ("help", "there is no command 'help'; did you mean 'realtime-ssd --help'"),
        ("pull x", "there is no command 'pull'; did you mean 'realtime-ssd models pull'"),
        ("demo -conf 0.5", "detect has no option -conf; did you mean --score-threshold"),
        ("demo -o x.mp4", "detect has no option -o; did you mean --output"),
        ("detect --hlep", "detect has no option --hlep; did you mean --help"),
        ("train custom --model x", "train has no option --model; did you mean --init"),
        ("models pul x", "there is no command 'models pul'; did you mean 'models pull'"),
        ("engines lst", "there is no command 'engines lst'; did you mean 'engines list'"),
        ("models info stret", "there is no model 'stret'; did you mean 'street'"),
        ("demo --score-threshold a=b", "--score-threshold must be a number between 0 and 1, or"),
        ("demo --score-threshold a=1,a=0", "--score-threshold has two values for class 'a'"),
        ("demo --score-threshold cart=1", "class 'cart' is unknown to model"),
    ],
)
def test_errors_name_what_was_meant(
    arguments: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, text = output_of(capsys, *arguments.split())
    assert (status, text.count("\n")) == (2, 1)
    assert text.startswith("realtime-ssd: ")
    assert message in text


def test_bash_completes_commands_and_options(capsys: pytest.CaptureFixture[str]) -> None:
    _, script, _ = output_of(capsys, "completion", "bash")
    complete = (
        'f=$(complete -p realtime-ssd | sed "s/.*-F \\([^ ]*\\).*/\\1/"); '
        'COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); $f; echo "${COMPREPLY[@]}"\n'
    )
    for words, expected in (("eva", "evaluate"), ("detect --agn", "--agnostic-nms")):
        commands_ = f"{script}\nCOMP_WORDS=(realtime-ssd {words})\n{complete}"
        done = subprocess.run(["bash"], input=commands_, capture_output=True, text=True, check=True)
        assert expected in done.stdout.split()
