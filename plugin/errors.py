"""The errors of this package, under one base class.

Each class is also the built-in type that a caller of Captum or PyTorch expects, so that both of these catch it:

>>> import torch
>>> from torch import nn
>>> from plugin.attr import GuidedBackprop
>>> from plugin.errors import AttributionError
>>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)).eval()
>>> images = torch.randn(2, 3, 8, 8)
>>> try:
...     GuidedBackprop(model).attribute(images, target=1000)
... except AttributionError as error:  # or IndexError, or AssertionError
...     print(error)
target 1000 is out of range for the output (2, 10): it must be between -10 and 9
"""

NO_DEPENDENCE = (
    "the explained output does not depend on the inputs. Look for torch.no_grad, inference_mode, detach(), .data, "
    "NumPy, argmax, rounding, comparisons and quantised layers between the inputs and the output, and check the target"
)


class AttributionError(Exception):
    """Base class of the errors of this package. The message names the problem and the remedy."""


class NotAModuleError(AttributionError, AssertionError, TypeError):
    """The object passed as the model is no `nn.Module`."""


class ModelError(AttributionError, ValueError):
    """The model cannot be explained: it was scripted, compiled or quantised, or has parameters without a shape."""


class ModelOutputError(AttributionError, AssertionError, TypeError):
    """The model does not return a single tensor, and the target does not select a value to explain."""


class LayerError(AttributionError, ValueError):
    """The model has no such layer, or does not run it, or the layer lacks the needed tensors."""


class TargetError(AttributionError, AssertionError, IndexError):
    """The output has no such target, or the target leaves more than one value per example."""


class NeuronError(AttributionError, AssertionError, IndexError, ValueError):
    """The layer has no such neuron, or the selector leaves more than one value per example."""


class InputTypeError(AttributionError, AssertionError, TypeError):
    """An input is no tensor, or has a type without gradient."""


class InputValueError(AttributionError, ValueError):
    """An input is empty, not finite, or does not match the others."""


class OptionError(AttributionError, ValueError):
    """An option has a value that it does not take."""


class OptionTypeError(AttributionError, TypeError):
    """An option is of a type that it does not take."""


class NoDependenceError(AttributionError, ValueError):
    """The explained value does not depend on the inputs."""


class NotFiniteError(AttributionError, ValueError):
    """The explained value is NaN or infinite."""


class NotSupportedError(AttributionError, NotImplementedError):
    """A method does not support a feature."""


class NoRuleError(NotSupportedError):
    """An operation of the model has no rule under the method."""


class UnseenOperationError(AttributionError, RuntimeError):
    """The model computes something where no rule can reach it."""


class ModelChangedError(AttributionError, RuntimeError):
    """A compiled attribution no longer fits its model."""


class MissingExtraError(AttributionError, ModuleNotFoundError):
    """A package is missing that only some commands and classes need. The message names the extra that installs it."""
