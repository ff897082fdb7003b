"""Build the distributions, and check that they run where nothing else is installed.

The wheel is built from the source distribution, installed into an empty environment, and run from
a folder with packages of its own named like the folders of this repository. The editable install
then replaces it. Prints sizes and durations; exits with a message at the first failure.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
IMPORT_PACKAGES = {"realtime_ssd", "realtime_ssd_engines", "realtime_ssd_training"}
DATA_FILES = (
    "realtime_ssd/assets/street.onnx",
    "realtime_ssd/py.typed",
    "realtime_ssd_engines/cuda/kernels/detect.cu",
    "realtime_ssd_engines/py.typed",
    "realtime_ssd_training/recipes/custom.toml",
    "realtime_ssd_training/py.typed",
)
EXTRAS_ONLY = (
    *("cuda-bindings", "matplotlib", "msgspec", "pillow", "scipy", "supervision", "tensorrt"),
    *("tensorrt-rtx-cu13-bindings", "torch"),
)
FOREIGN_PACKAGES = ("benchmarks", "engines", "tests", "training")
COMMANDS = (
    *("detect", "models", "doctor", "benchmark", "build", "engines"),
    *("import", "train", "evaluate", "export"),
)
FRAMES = 30
COUNT_FRAMES = "import av, sys; print(sum(1 for _ in av.open(sys.argv[1]).decode(video=0)))"


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    """Run a command outside this environment and return its standard output.

    Raises:
        SystemExit: If it fails.
    """
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONPATH", "VIRTUAL_ENV")
    }
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        words = " ".join(map(str, command))
        sys.exit(f"{words}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def build(output: Path) -> Path:
    """Build source distribution and wheel in isolation; return the wheel."""
    run(sys.executable, "-m", "build", "--outdir", output, ROOT)
    (wheel,) = output.glob("*.whl")
    for file in sorted(output.iterdir()):
        print(f"{file.name}: {file.stat().st_size / 1e6:.1f} MB")
    return wheel


def check_contents(wheel: Path) -> None:
    """Check the top-level names and data files of a wheel."""
    names = zipfile.ZipFile(wheel).namelist()
    packages = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    if packages != IMPORT_PACKAGES:
        sys.exit(f"the wheel installs {sorted(packages)}, expected {sorted(IMPORT_PACKAGES)}")
    missing = sorted(set(DATA_FILES) - set(names))
    if missing:
        sys.exit(f"the wheel is missing {', '.join(missing)}")


def install(folder: Path, *requirement: str | Path) -> None:
    """Install into the environment in `folder`."""
    pip = [folder / "bin" / "python", "-m", "pip", "--disable-pip-version-check"]
    run(*pip, "install", "--quiet", "-c", ROOT / "constraints.txt", *requirement)


def check_base_install(folder: Path) -> None:
    """Check that an environment holds no package of an extra."""
    listed = run(folder / "bin" / "python", "-m", "pip", "list", "--format", "freeze").lower()
    installed = {line.split("==")[0] for line in listed.splitlines()}
    unexpected = sorted(installed.intersection(EXTRAS_ONLY))
    if unexpected:
        sys.exit(f"the base install contains {', '.join(unexpected)}")


def check_program(folder: Path, output: Path) -> float:
    """Run every command's help and the demo from `output`; return the seconds of the demo."""
    for name in FOREIGN_PACKAGES:
        (output / name).mkdir(parents=True)
        (output / name / "__init__.py").touch()
    program, video = folder / "bin" / "realtime-ssd", output / "street.mp4"
    for command in COMMANDS:
        run(program, command, "--help", cwd=output)
    begin = time.monotonic()
    run(program, "--source", f"demo:frames={FRAMES}", "--output", video, cwd=output)
    seconds = time.monotonic() - begin
    frames = int(run(folder / "bin" / "python", "-c", COUNT_FRAMES, video))
    if frames != FRAMES:
        sys.exit(f"the demo wrote {frames} frames, expected {FRAMES}")
    return seconds


def megabytes(folder: Path) -> float:
    """Return the disk space of the files in a folder, in MiB."""
    return sum(file.lstat().st_blocks for file in folder.rglob("*")) * 512 / 2**20


def main() -> None:
    """Build, inspect, install and run."""
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        wheel = build(work / "dist")
        check_contents(wheel)
        environment = work / "environment"
        venv.create(environment, with_pip=True)
        empty, begin = megabytes(environment), time.monotonic()
        install(environment, wheel)
        seconds = time.monotonic() - begin
        check_base_install(environment)
        used = megabytes(environment) - empty
        demo = check_program(environment, work / "from-wheel")
        print(f"wheel: {used:.0f} MiB, installed in {seconds:.0f} s, demo in {demo:.1f} s")
        run(environment / "bin" / "python", "-m", "pip", "uninstall", "--yes", "realtime-ssd")
        install(environment, "-e", ROOT)
        demo = check_program(environment, work / "from-checkout")
        print(f"editable install: demo in {demo:.1f} s")


if __name__ == "__main__":
    main()
