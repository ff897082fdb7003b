"""Annotated images of every usual format, as one kind of data set."""

from realtime_ssd_training.data.opening import open_dataset
from realtime_ssd_training.data.sample import (
    Annotation,
    Dataset,
    Problem,
    Sample,
    Subset,
    summarise,
)

__all__ = ["Annotation", "Dataset", "Problem", "Sample", "Subset", "open_dataset", "summarise"]
