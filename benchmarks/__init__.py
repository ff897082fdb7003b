"""Runnable comparisons behind every number the project claims."""
