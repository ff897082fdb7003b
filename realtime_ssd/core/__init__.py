"""Data types, the model specification, and the numpy reference of every backend."""
