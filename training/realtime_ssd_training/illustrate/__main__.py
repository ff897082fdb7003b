"""Draw the figures of `docs/ssd.md`: `python -m realtime_ssd_training.illustrate [FOLDER]`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from realtime_ssd.core.errors import RealtimeSSDError, UsageError
from realtime_ssd_training.illustrate.figure_list import FIGURES
from realtime_ssd_training.illustrate.figure_style import save_figure


def main(args: Sequence[str] | None = None) -> int:
    """Draw all figures, or the named ones.

    Args:
        args: Command line; that of the process if None.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(
        prog="python -m realtime_ssd_training.illustrate", description=__doc__
    )
    parser.add_argument("folder", nargs="?", type=Path, default=Path("docs/images"))
    parser.add_argument("--only", nargs="+", choices=sorted(FIGURES), metavar="NAME")
    options = parser.parse_args(args)
    try:
        if not options.folder.is_dir():
            raise UsageError(f"folder '{options.folder}' does not exist; create it first")
        for name in options.only or FIGURES:
            path = options.folder / f"{name}.png"
            save_figure(FIGURES[name](), path)
            print(f"{path}: {path.stat().st_size / 1000:.0f} kB")
    except RealtimeSSDError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
