"""Figures and statistics of `docs/ssd.md`, computed by the code that the page explains.

`python -m realtime_ssd_training.illustrate` redraws the figures.
"""
