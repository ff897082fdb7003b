"""`python -m realtime_ssd`, the same as the command `realtime-ssd`."""

from realtime_ssd.cli import main

main()
