"""Downloads over HTTP, verified by SHA-256."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from urllib.parse import urlsplit

from realtime_ssd.core.errors import ModelError, RealtimeSSDError, UsageError, first_line, redact
from realtime_ssd.core.files import make_folder, replace_file, sha256_of

__all__ = ["CHECKSUMS", "download"]

CHECKSUMS = "checksums.json"
"""File with the full SHA-256 of downloads, by address, whose publisher states only a part of it."""

_TIMEOUT = 30.0
_CHUNK_SIZE = 1 << 20
_FULL_LENGTH = 64
_log = logging.getLogger(__name__)


def download(
    url: str, sha256: str, path: Path, *, hint: str, checksums: Path | None = None
) -> None:
    """Download a file unless it exists, and verify its SHA-256.

    The checksum should be complete. Some publishers state only its first digits, in the file name;
    then these must match, and the full checksum of the first download is recorded with a warning,
    so that every later download from the same address must be the same file.

    Args:
        url: Address, http or https; redirects may not lead elsewhere.
        sha256: Published SHA-256 in hexadecimal digits: all 64, or the first ones.
        path: File to create or replace; it is complete and verified whenever it exists.
        hint: What to do with a file that was downloaded by other means, for the error message.
        checksums: JSON file with recorded checksums; `checksums.json` next to `path` by default.

    Raises:
        UsageError: If the address is not http or https, or the folder cannot be created.
        RealtimeSSDError: If the download fails.
        ModelError: If the file has another checksum, or the recorded ones cannot be read.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise UsageError(f"'{url}' cannot be downloaded; use an http or https address")
    make_folder(path.parent)
    checksums = checksums or path.parent / CHECKSUMS
    expected = _expected_sha256(url, sha256.lower(), checksums)
    if path.is_file() and sha256_of(path).startswith(expected):
        return
    temporary = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        _fetch(url, temporary, hint)
        digest = sha256_of(temporary)
        if not digest.startswith(expected):
            raise ModelError(
                f"'{url}' has sha256 {digest[:16]}..., expected {expected[:16]}...; the download "
                "was discarded"
            )
        if len(expected) < _FULL_LENGTH:
            _record(url, digest, checksums)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _fetch(url: str, path: Path, hint: str) -> None:
    from pooch import HTTPDownloader

    try:
        HTTPDownloader(timeout=_TIMEOUT, chunk_size=_CHUNK_SIZE)(url, str(path), None)
    except OSError as error:  # errors of requests are OSErrors too
        raise RealtimeSSDError(
            f"'{url}' cannot be downloaded ({_reason(error)}); check the network, or download it "
            f"by other means and {hint}"
        ) from None


def _reason(error: OSError) -> str:
    import requests

    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"the server answered {error.response.status_code} {error.response.reason}"
    for kind, reason in (
        (requests.Timeout, f"no answer within {_TIMEOUT:.0f} s"),
        (requests.TooManyRedirects, "too many redirects"),
        (requests.exceptions.InvalidSchema, "it redirects to an address other than http or https"),
        (requests.exceptions.SSLError, "the certificate of the server is not valid"),
        (requests.exceptions.ChunkedEncodingError, "the connection was lost"),
        (requests.ConnectionError, "no connection"),
    ):
        if isinstance(error, kind):
            return reason
    return error.strerror or first_line(error)


def _expected_sha256(url: str, published: str, checksums: Path) -> str:
    """Return the recorded checksum if it continues the published digits, else these digits."""
    recorded = _recorded(checksums).get(redact(url), "")
    return recorded if recorded.startswith(published) else published


def _recorded(checksums: Path) -> dict[str, str]:
    try:
        content = json.loads(checksums.read_bytes())
        return {str(url): str(digest) for url, digest in content.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(
            f"the recorded checksums in '{checksums}' cannot be read ({first_line(error)}); delete "
            "the file to record them again"
        ) from None


def _record(url: str, digest: str, checksums: Path) -> None:
    content = {**_recorded(checksums), redact(url): digest}
    replace_file(checksums, json.dumps(content, indent=1, sort_keys=True).encode() + b"\n")
    _log.warning(
        "only the beginning of the sha256 of '%s' is published; its full sha256 %s was recorded in "
        "'%s' and is required from now on",
        *(redact(url), digest, checksums),
    )
