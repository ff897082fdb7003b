"""Downloads over HTTP, verified by SHA-256."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import threading
import zipfile
import zlib
from pathlib import Path
from urllib.parse import urlsplit

from realtime_ssd.core.errors import ModelError, RealtimeSSDError, UsageError, first_line, redact
from realtime_ssd.core.files import make_folder, replace_file, sha256_of
from realtime_ssd.core.spec_decoder import parse_object, text

__all__ = ["CHECKSUMS", "download", "download_member", "extract_member"]

CHECKSUMS = "checksums.json"
"""File with the full SHA-256 of downloads, by address, whose publisher states only a part of it."""

_DIGEST = text(64, shortest=64)
_TIMEOUT = 30.0
_CHUNK_SIZE = 1 << 16
_STALL_TIMEOUT, _LEAST_BYTES = 60.0, 1 << 17
"""Seconds in which a download must proceed, and by how many bytes."""
_LARGEST_MEMBER = 2 * 2**30
"""Bytes of a file in an archive; the largest published models have 500 MB."""
_FULL_LENGTH = 64
_DAMAGED_ZIP = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)
_log = logging.getLogger(__name__)


def download(
    url: str, sha256: str, path: Path, *, hint: str, checksums: Path | None = None
) -> None:
    """Download a file unless it exists, and verify its SHA-256.

    The checksum should be complete. Some publishers state only its first digits, or none;
    then these must match, and the full checksum of the first download is recorded with a warning,
    so that every later download from the same address must be the same file.

    Args:
        url: Address, http or https; redirects may not lead elsewhere.
        sha256: Published SHA-256 in hexadecimal digits: all 64, the first ones, or none.
        path: File to create or replace; it is complete and verified whenever it exists.
        hint: What to do with a file that was downloaded by other means, for the error message.
        checksums: JSON file with recorded checksums; `checksums.json` next to `path` by default.

    Raises:
        UsageError: If the address is not http or https, or the folder cannot be created.
        RealtimeSSDError: If the download fails.
        ModelError: If the file has another checksum, or the recorded ones cannot be read.
    """
    _check_address(url)
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


def download_member(url: str, member: str, sha256: str, path: Path, *, hint: str) -> None:
    """Download a zip archive and extract one file, which is verified by its own SHA-256.

    Args:
        url: Address of the archive, http or https.
        member: Name of the file in the archive, in whichever folder.
        sha256: SHA-256 of that file, all 64 hexadecimal digits.
        path: File to create or replace; it is complete and verified whenever it exists.
        hint: What to do with an archive that was downloaded by other means, for the error message.

    Raises:
        UsageError: If the address is not http or https, or the folder cannot be created.
        RealtimeSSDError: If the download fails.
        ModelError: If the archive is damaged or the file in it has another checksum.
    """
    _check_address(url)
    make_folder(path.parent)
    if path.is_file() and sha256_of(path) == sha256.lower():
        return
    archive = path.with_name(f"{path.name}.{os.getpid()}.zip.partial")
    try:
        _fetch(url, archive, hint)
        extract_member(archive, member, sha256, path, origin=url)
    finally:
        archive.unlink(missing_ok=True)


def extract_member(archive: Path, member: str, sha256: str, path: Path, *, origin: str) -> None:
    """Extract one file of a zip archive and verify its SHA-256.

    Args:
        archive: The archive.
        member: Name of the file in the archive, in whichever folder.
        sha256: SHA-256 of that file, all 64 hexadecimal digits.
        path: File to create or replace, only if the checksum is correct.
        origin: The archive as the user knows it, for the error message.

    Raises:
        RealtimeSSDError: If the file cannot be written.
        ModelError: If the archive is damaged or the file in it has another checksum.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        _copy_member(archive, member, temporary, origin)
        digest = sha256_of(temporary)
        if digest != sha256.lower():
            raise ModelError(
                f"'{member}' in '{origin}' has sha256 {digest[:16]}..., expected {sha256[:16]}...; "
                "it was discarded"
            )
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _copy_member(archive: Path, member: str, path: Path, origin: str) -> None:
    try:
        with zipfile.ZipFile(archive) as opened:
            names = [name for name in opened.namelist() if name.rsplit("/", 1)[-1] == member]
            if len(names) != 1:
                raise ModelError(f"'{origin}' contains no file '{member}'")
            if opened.getinfo(names[0]).file_size > _LARGEST_MEMBER:
                raise ModelError(f"'{member}' in '{origin}' is larger than any published model")
            with opened.open(names[0]) as source, path.open("wb") as target:
                shutil.copyfileobj(source, target, _CHUNK_SIZE)
    except _DAMAGED_ZIP as error:
        raise ModelError(f"'{origin}' is not a readable zip archive; it may be damaged") from error
    except OSError as error:
        reason = error.strerror or first_line(error)
        raise RealtimeSSDError(f"'{path}' cannot be written: {reason}") from None


def _check_address(url: str) -> None:
    if urlsplit(url).scheme not in ("http", "https"):
        raise UsageError(f"'{url}' cannot be downloaded; use an http or https address")


def _fetch(url: str, path: Path, hint: str) -> None:
    try:
        _download_watched(url, path)
    except OSError as error:  # errors of requests are OSErrors too
        raise RealtimeSSDError(
            f"'{url}' cannot be downloaded ({_reason(error)}); check the network, or download it "
            f"by other means and {hint}"
        ) from None


def _download_watched(url: str, path: Path) -> None:
    """Download in a thread that is abandoned if the server sends next to nothing.

    The time limit of a socket starts anew with every byte, of headers too.

    Raises:
        OSError: If the download fails or stalls.
    """
    from pooch import HTTPDownloader

    failures: list[Exception] = []

    def fetch() -> None:
        try:
            HTTPDownloader(timeout=_TIMEOUT, chunk_size=_CHUNK_SIZE)(url, str(path), None)
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=fetch, name="download", daemon=True)
    thread.start()
    received = 0
    while thread.is_alive():
        thread.join(_STALL_TIMEOUT)
        size = path.stat().st_size if path.exists() else 0
        if thread.is_alive() and size < received + _LEAST_BYTES:
            raise TimeoutError(errno.ETIMEDOUT, "the server sends next to nothing")
        received = size
    if failures:
        raise failures[0]


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
        content = parse_object(checksums.read_text("utf-8"))
        return {url: _DIGEST(url, digest) for url, digest in content.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ModelError(
            f"the recorded checksums in '{checksums}' cannot be read ({first_line(error)}); delete "
            "the file to record them again"
        ) from None


def _record(url: str, digest: str, checksums: Path) -> None:
    content = {**_recorded(checksums), redact(url): digest}
    replace_file(checksums, json.dumps(content, indent=1, sort_keys=True).encode() + b"\n")
    _log.warning(
        "'%s' has no complete published sha256; its full sha256 %s was recorded in "
        "'%s' and is required from now on",
        *(redact(url), digest, checksums),
    )
