"""Fuzz by hand: `python -m tests.fuzz [SECONDS] [KIND…]` prints a table of counts.

Exits with status 1 if any input had an unexpected error, hung or crashed.
"""

from __future__ import annotations

import itertools
import random
import sys
import time

from tests.fuzz.formats import KINDS
from tests.fuzz.runner import Counts, fuzz

BATCH = 100


def main(arguments: list[str]) -> int:
    """Fuzz formats in turn for a time and print the counts."""
    seconds = float(arguments[0]) if arguments else 600.0
    kinds = arguments[1:] or list(KINDS)
    first, end = random.SystemRandom().randrange(10**9), time.monotonic() + seconds
    totals = {kind: Counts() for kind in kinds}
    for number in itertools.count():
        kind = kinds[number % len(kinds)]
        if number and time.monotonic() > end:
            break
        counts, total = fuzz(kind, first + number * BATCH, BATCH), totals[kind]
        total.inputs += counts.inputs
        total.sentences += counts.sentences
        total.successes += counts.successes
        total.faults += counts.faults
    print(f"{'format':<12}{'inputs':>8}{'sentences':>10}{'successes':>10}{'faults':>8}")
    for kind, total in totals.items():
        print(
            f"{kind:<12}{total.inputs:>8}{total.sentences:>10}{total.successes:>10}"
            f"{len(total.faults):>8}"
        )
        for number, outcome in total.faults:
            print(f"  {kind} {number}: {outcome}")
    return int(any(total.faults for total in totals.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
