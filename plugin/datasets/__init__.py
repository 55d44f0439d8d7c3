"""Attribution maps of whole image folders, in zarr stores. Needs the extra `datasets`."""

from .attribute import Report, attribute_folder

__all__ = ["Report", "attribute_folder"]
