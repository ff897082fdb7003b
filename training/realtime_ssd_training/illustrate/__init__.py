"""The pictures and the figures of `docs/ssd.md`, taken from the code they explain.

`python -m realtime_ssd_training.illustrate` draws the pictures anew.
"""
