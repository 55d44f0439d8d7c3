"""Attribution maps of whole data sets, resumable, on one machine or many. Needs the extra `datasets`."""

from .attribute import attribute_dataset, attribute_folder
from .explain import Explain
from .local_engine import TooManyErrors
from .records import Record, Report, Sink, Source, UnreadablePicture

__all__ = [
    "Explain",
    "Record",
    "Report",
    "Sink",
    "Source",
    "TooManyErrors",
    "UnreadablePicture",
    "attribute_dataset",
    "attribute_folder",
]
