"""Running the program in a process of its own, as a user does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if "DISPLAY" not in name},
    "COLUMNS": "200",
    "OMP_NUM_THREADS": "1",
}


def run(
    *arguments: object, models: Path | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `realtime-ssd` and wait for its end."""
    environment = {**ENVIRONMENT, **({"REALTIME_SSD_MODELS": str(models)} if models else {})}
    return subprocess.run(
        [sys.executable, "-m", "realtime_ssd", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=environment,
        cwd=cwd,
    )


def start(*arguments: object) -> subprocess.Popen[str]:
    """Start `realtime-ssd`; its standard output is readable line by line."""
    return subprocess.Popen(
        [sys.executable, "-m", "realtime_ssd", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )
