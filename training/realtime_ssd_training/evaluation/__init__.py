"""Evaluation of detectors: metrics, error analysis, plots and reports."""
