"""Annotated images of every usual format, as one kind of data set."""

from training.data.opening import open_dataset
from training.data.sample import Annotation, Dataset, Problem, Sample, summarise

__all__ = ["Annotation", "Dataset", "Problem", "Sample", "open_dataset", "summarise"]
