"""A process that behaves as its section is named; started by `test_gpu_section_process.py`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

from benchmarks.gpu.checks import GPU_LOST, SectionRequest

CHECKS = ("first", "second", "third")


def send(kind: str, value: object) -> None:
    print(json.dumps({kind: value}), flush=True)


def main() -> int:
    """Run three checks; the second has the fault that the section is named after."""
    request = SectionRequest.from_json(sys.argv[1])
    fault = request.section
    if fault == "cannot start":
        raise ImportError("a library is damaged")
    print("a library prints this", flush=True)
    send("plan", CHECKS)
    for name in CHECKS:
        if name in request.done:
            continue
        send("begin", name)
        if name == "second" and fault == "hang":
            subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
            time.sleep(600)
        if name == "second" and fault == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if name == "second" and fault == "status":
            sys.exit(3)
        lost = name == "second" and fault == "lost"
        send("row", {"section": fault, "name": name, "status": "failed: lost" if lost else "ok"})
        send("end", name)
        if lost:
            return GPU_LOST
    return 0


if __name__ == "__main__":
    sys.exit(main())
