"""Training, evaluation, export and import of SSD models."""
