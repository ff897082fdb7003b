"""Passwords and tokens of a source appear nowhere in what the program writes."""

from __future__ import annotations

from pathlib import Path

from tests.cli.program import run
from tests.core.http_server import serve_folder
from tests.videos import make_video


def test_no_output_has_a_secret(tiny: Path, tmp_path: Path) -> None:
    media, output = tmp_path / "media", tmp_path / "out"
    media.mkdir()
    make_video(media / "clip.mp4", [1001 * k for k in range(3)])
    with serve_folder(media) as server:
        address = server.url.removeprefix("http://")
        url = f"http://me:s3cretpw@{address}/clip.mp4?access_token=s3crettoken&jwt=s3cretjwt&x=1"
        outputs = ("--output", output, "--json", output / "o.jsonl", "--stats", output / "s.json")
        done = run("--source", url, "--model", tiny, *outputs, "--debug")
        assert done.returncode == 0, done.stderr
        bad = run(
            "--source", url.replace("clip", "none"), "--model", tiny, "--json", "-", "--debug"
        )
        assert bad.returncode == 1
        assert "Traceback" in bad.stderr
    written = "".join(path.name for path in output.rglob("*"))
    written += "".join(path.read_bytes().decode("latin-1") for path in output.rglob("*.*"))
    for text in (done.stdout, done.stderr, bad.stdout, bad.stderr, written):
        assert "s3cret" not in text
    assert "x=1" in written
