"""Attribution maps of whole data sets, resumable, on one machine or many. Needs the extra `datasets`."""

from .attribute import attribute_dataset, attribute_folder
from .explain import Explain
from .records import Record, Report, Sink, Source

__all__ = ["Explain", "Record", "Report", "Sink", "Source", "attribute_dataset", "attribute_folder"]
