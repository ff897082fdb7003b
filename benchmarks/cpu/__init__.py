"""Comparisons that need no GPU."""
