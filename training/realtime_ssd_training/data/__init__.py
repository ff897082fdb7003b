"""Annotated image datasets of all common formats behind one interface."""

from realtime_ssd_training.data.dataset_factory import open_dataset
from realtime_ssd_training.data.sample import (
    Annotation,
    Dataset,
    Problem,
    Sample,
    Subset,
    summarize,
)

__all__ = ["Annotation", "Dataset", "Problem", "Sample", "Subset", "open_dataset", "summarize"]
