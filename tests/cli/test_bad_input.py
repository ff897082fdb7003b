"""Every wrong input is reported in one sentence with the right exit status."""

from __future__ import annotations

import os
import socket
import threading
import traceback
from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from realtime_ssd.cli import main
from realtime_ssd.core.errors import RealtimeSSDError
from realtime_ssd.core.spec import METADATA_KEY
from tests.cli.program import run
from tests.tiny import tiny_model, tiny_spec


def assert_rejected(status: int, text: str, *arguments: object) -> None:
    finished = run(*arguments)
    lines = [line for line in finished.stderr.splitlines() if line.startswith("realtime-ssd: ")]
    assert finished.returncode == status, finished.stderr
    assert len(lines) == 1, finished.stderr
    assert text in lines[0]
    assert "Traceback" not in finished.stderr


DEMO = ("--source", "demo:160x96,frames=2")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("no source was specified", ("--json", "-")),
        ("does not exist", ("--video", "missing.mp4")),
        ("does not exist", (*DEMO, "--model", "missing.onnx")),
        ("there is no model 'missing'", (*DEMO, "--model", "missing")),
        ("backend 'gpu' is unknown", (*DEMO, "--backend", "gpu", "--model", "TINY")),
        ("class 'brigth' is unknown", (*DEMO, "--classes", "brigth", "--model", "TINY")),
        ("did you mean 'bright'", (*DEMO, "--classes", "brigth", "--model", "TINY")),
        ("--batch must be at least 1", (*DEMO, "--batch", "0", "--model", "TINY")),
        ("--max-frames must be at least 1", (*DEMO, "--max-frames", "0", "--model", "TINY")),
        ("--score-threshold must be between", (*DEMO, "--score-threshold", "2", "--model", "TINY")),
        ("unknown scheme", ("--source", "gopher://host/x", "--model", "TINY")),
        ("not a supported output format", (*DEMO, "--output", "x.doc", "--model", "TINY")),
        ("cannot be written", (*DEMO, "--output", "/dev/null/x.mp4", "--model", "TINY")),
        ("cannot be written", (*DEMO, "--json", "/dev/null/x.jsonl", "--model", "TINY")),
        ("has no option --no-such-option", (*DEMO, "--no-such-option")),
        ("is not a valid demo", ("--source", "demo:huge", "--model", "TINY")),
        ("appears twice", (*DEMO, *DEMO, "--model", "TINY", "--json", "-")),
    ],
)
def test_wrong_usage_exits_with_2(tiny: Path, text: str, words: tuple[str, ...]) -> None:
    assert_rejected(2, text, *(tiny if word == "TINY" else word for word in words))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("'clip.mp4' does not exist", ("clip.mp4",)),
        ("'b.jpg' does not exist", ("--source", "demo", "b.jpg")),
        ("there is no command 'modles'; did you mean 'realtime-ssd models'", ("modles",)),
        ("there is no command 'street' and no such source; see", ("detect", "street")),
        ("no source was specified; name a file, folder, URL, camera", ("detect",)),
        ("--source has no value before '--output'", ("--source", "--output", "x.mp4")),
        ("--start must be a time in seconds or as hours:minutes", (*DEMO, "--start", "1:2:3:4")),
        ("--end must be after --start (90 seconds)", (*DEMO, "--start", "1:30", "--end", "60")),
        ("--frame-step must be at least 1, not 0", (*DEMO, "--frame-step", "0")),
        ("--interval must be above 0 seconds, not 0", (*DEMO, "--interval", "0")),
        ("--roi must be x,y,width,height", (*DEMO, "--roi", "1,2,3")),
        ("--roi 0,0,9999,9 is not within the 160x96 pixels", (*DEMO, "--roi", "0,0,9999,9")),
        ("is not a camera; use a number or a device", ("--camera", "front")),
        ("has settings that are not understood", ("--camera", "0?size=big")),
        ("contains a '/', '?' or '#'; write them as", ("rtsp://me:a#b@host/live",)),
        ("unexpected argument 'nope'; see realtime-ssd models --help", ("models", "nope")),
        ("--iou-threshold must be between 0 and 1, not nan", (*DEMO, "--iou-threshold", "nan")),
        ("--pre-nms-top-k must be at least 1, not 0", (*DEMO, "--pre-nms-top-k", "0")),
        ("model file 'missing.onnx' does not exist", (*DEMO, "--model", "missing.onnx")),
    ],
)
def test_messages_are_one_line(
    capsys: pytest.CaptureFixture[str], text: str, words: tuple[str, ...]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(list(words))
    (line,) = capsys.readouterr().err.splitlines()
    assert text in line
    assert caught.value.code == 2


@pytest.mark.parametrize(
    "words",
    [
        ("URL",),
        ("--source", "URL", "--no-such-option"),
        ("--source", "demo", "--max-frames", "URL"),
        ("--source", "demo", "--json", "-", "--model", "URL"),
        ("--source", "demo", "--json", "-", "--backend", "URL"),
        ("--video", "URL"),
        ("--source", "URL"),
        ("--source", "URL", "--debug"),
        ("models", "pull", "URL"),
    ],
)
@pytest.mark.parametrize("secret", ["hunter2", "hun'ter2", "hunter2@home", "hunter2/home"])
def test_messages_never_contain_a_password(
    capfd: pytest.CaptureFixture[str], words: tuple[str, ...], secret: str
) -> None:
    url = f"rtsp://admin:{secret}@127.0.0.1:1/live"
    with pytest.raises((SystemExit, RealtimeSSDError)) as caught:
        main([word.replace("URL", url) for word in words])
    if isinstance(caught.value, RealtimeSSDError):  # only with --debug
        print("".join(traceback.format_exception(caught.value)))
    captured = capfd.readouterr()
    for part in ("hunter", "hun'ter", "ter2", "admin"):
        assert part not in captured.out + captured.err


def test_missing_camera(tiny: Path) -> None:
    assert_rejected(2, "camera 97 does not exist", "--camera", 97, "--model", tiny, "--json", "-")


def test_outputs_are_not_overwritten(tiny: Path, tmp_path: Path) -> None:
    for option, name in (("--json", "a.jsonl"), ("--stats", "a.json"), ("--output", "a.mp4")):
        (tmp_path / name).write_text("precious")
        assert_rejected(2, "--overwrite", *DEMO, "--model", tiny, option, tmp_path / name)
        assert (tmp_path / name).read_text() == "precious"


def test_sources_that_are_not_videos(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("not a video" * 50)
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "folder").mkdir()
    assert_rejected(
        1, "not a video, or it is damaged", "--video", tmp_path / "text.mp4", "--model", tiny
    )
    assert_rejected(
        1, "cannot be read as a video", "--video", tmp_path / "empty.mp4", "--model", tiny
    )
    assert_rejected(
        2, "contains no photos or videos", "--source", tmp_path / "folder", "--model", tiny
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read every file")
def test_unreadable_file(tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "secret.mp4"
    path.touch(mode=0)
    assert_rejected(2, "Permission denied", "--video", path, "--model", tiny)


def test_unusable_models(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(b"\x08\x07junk" * 20)
    assert_rejected(1, "not a readable ONNX file", *DEMO, "--model", damaged)
    (tmp_path / "empty.onnx").touch()
    assert_rejected(1, "its graph is empty", *DEMO, "--model", tmp_path / "empty.onnx")

    bare = tiny_model(tmp_path / "bare.onnx")
    model = onnx.load(str(bare))
    del model.metadata_props[:]
    onnx.save(model, str(bare))
    assert_rejected(1, "has no model specification", *DEMO, "--model", bare)

    spec = tiny_spec()
    wrong = replace(spec, labels=("background", "bright", "dark"))
    assert_rejected(
        1,
        "'scores' should be (None, 16, 3)",
        *DEMO,
        "--model",
        tiny_model(tmp_path / "w.onnx", wrong),
    )

    broken = tiny_model(tmp_path / "broken.onnx")
    model = onnx.load(str(broken))
    for entry in model.metadata_props:
        if entry.key == METADATA_KEY:
            entry.value = entry.value[:-20]
    onnx.save(model, str(broken))
    assert_rejected(1, "specification is damaged", *DEMO, "--model", broken)

    nan = tiny_model(tmp_path / "nan.onnx", factor=float("nan"))
    assert_rejected(1, "NaN", *DEMO, "--model", nan, "--json", "-")


def test_running_out_of_memory_is_one_sentence(tiny: Path) -> None:
    assert_rejected(1, "not enough memory", *DEMO, "--model", tiny, "--batch", 10**9, "--json", "-")


def test_stream_that_refuses_connections(tiny: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://user:hunter2@127.0.0.1:{port}/live"
    finished = run("--source", url, "--model", tiny, "--json", "-")
    assert finished.returncode == 1
    assert "connection refused" in finished.stderr.lower()
    assert "hunter2" not in finished.stderr + finished.stdout


def test_stream_with_wrong_password(tiny: Path) -> None:
    answer = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)

        def serve() -> None:
            for _ in range(2):
                try:
                    client, _ = server.accept()
                except OSError:
                    return
                with client:
                    client.recv(65536)
                    client.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        url = f"http://user:hunter2@127.0.0.1:{server.getsockname()[1]}/live"
        finished = run("--source", url, "--model", tiny, "--json", "-")
    assert finished.returncode == 1
    assert "refused the user name or password" in finished.stderr
    assert "hunter2" not in finished.stderr + finished.stdout
