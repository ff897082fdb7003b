"""Seeded mutations of files from strangers: every outcome is a success or one sentence."""
