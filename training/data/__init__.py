"""Annotated images of every usual format, as one kind of data set."""

from training.data.opening import open_dataset
from training.data.sample import Annotation, Dataset, Problem, Sample, Subset, summarise

__all__ = ["Annotation", "Dataset", "Problem", "Sample", "Subset", "open_dataset", "summarise"]
