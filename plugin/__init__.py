"""Attribution for convolutional networks with Captum's API: deconvnet, guided backprop and their relatives."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("captum-simplicity")
except PackageNotFoundError:  # a source folder on Python's path, without an installed distribution
    __version__ = "unknown"
