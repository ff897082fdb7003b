"""Draws the pictures of `docs/ssd.md`: `python -m realtime_ssd_training.illustrate [FOLDER]`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from realtime_ssd.core.errors import RealtimeSSDError, UsageError
from realtime_ssd_training.illustrate.canvas import save
from realtime_ssd_training.illustrate.pictures import PICTURES


def main(words: Sequence[str] | None = None) -> int:
    """Draw all pictures, or those that are named.

    Args:
        words: Command line; that of the program if None.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(
        prog="python -m realtime_ssd_training.illustrate", description=__doc__
    )
    parser.add_argument("folder", nargs="?", type=Path, default=Path("docs/images"))
    parser.add_argument("--only", nargs="+", choices=sorted(PICTURES), metavar="NAME")
    given = parser.parse_args(words)
    try:
        if not given.folder.is_dir():
            raise UsageError(f"there is no folder '{given.folder}'; make it or name another one")
        for name in given.only or PICTURES:
            path = given.folder / f"{name}.png"
            save(PICTURES[name](), path)
            print(f"{path}: {path.stat().st_size / 1000:.0f} kB")
    except RealtimeSSDError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
