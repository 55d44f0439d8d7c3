"""Inputs of a model: a tensor or a tuple of them, checked before anything runs."""

import cmath
from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor

from .errors import InputTypeError, InputValueError
from .kernels.tracing import is_tracing

Inputs: TypeAlias = Tensor | tuple[Tensor, ...]
# Maps have the form of the inputs: a tensor for a tensor, a tuple for a tuple.
Given = TypeVar("Given", bound=Inputs)


def as_tuple(inputs: Inputs) -> tuple[Tensor, ...]:
    """A tensor or a tuple of tensors, as a tuple of plain tensors.

    Raises:
        InputTypeError: it is neither.
    """
    if isinstance(inputs, Tensor):
        inputs = (inputs,)
    if not isinstance(inputs, tuple):
        remedy = "tuple(inputs)" if isinstance(inputs, list) else "a tensor, or a tuple of tensors"
        raise InputTypeError(f"inputs is a {type(inputs).__name__}: pass {remedy}")
    return tuple(map(_plain, inputs))


def _plain(value: Any) -> Any:
    """A tensor without the subclass of MONAI, fastai or torchvision; those with their own dispatch stay unchanged."""
    if type(value) is Tensor or not isinstance(value, Tensor) or _has_own_operations(type(value)):
        return value
    with torch._C.DisableTorchFunctionSubclass():
        return value.as_subclass(Tensor)


def _has_own_operations(kind: type[Tensor]) -> bool:
    """Whether tensors of a type hold no memory of their own, like those of a recording."""
    return kind.__torch_dispatch__ is not Tensor.__torch_dispatch__


def _unusual_form(value: Tensor) -> str | None:
    """The form of a tensor that does not hold plain numbers in rows, and the remedy; None for all others."""
    if value.is_nested:
        return "a nested tensor: pass a padded one, as torch.nested.to_padded_tensor makes it"
    if value.layout is not torch.strided:
        return f"a tensor of layout {value.layout}: pass a dense one, as x.to_dense() is"
    if value.is_quantized:
        return f"quantised ({value.dtype}): pass x.dequantize()"
    if value.is_floating_point() and value.itemsize == 1:
        return f"{value.dtype}, in which PyTorch does not compute: pass x.to(torch.float32)"
    if _has_own_operations(type(value)):
        return f"a {type(value).__name__}, which computes in its own way: pass a plain torch.Tensor"
    return None


def has_gradient(value: Tensor) -> bool:
    """Whether values of its type have a gradient; integers have none."""
    return value.is_floating_point() or value.is_complex()


def check_finite(inputs: tuple[Tensor, ...], allow_integers: bool = False) -> None:
    """Refuse inputs without a gradient or without meaning.

    While operations are recorded no value is known; the values of the recording's examples were checked before.

    Args:
        inputs: one or more tensors.
        allow_integers: accept integers, such as token ids.

    Raises:
        InputTypeError: an input is no tensor, not floating point, or sparse, nested, quantised or the like.
        InputValueError: an input is empty, or holds NaN or infinity.
    """
    if is_tracing():
        return
    for position, value in enumerate(inputs):
        if not isinstance(value, Tensor):
            raise InputTypeError(f"input {position} is a {type(value).__name__}: pass tensors")
        if (form := _unusual_form(value)) is not None:
            raise InputTypeError(f"input {position} is {form}")
        if not (allow_integers or has_gradient(value)):
            raise InputTypeError(
                f"input {position} is {value.dtype}, which has no gradient: pass a floating point tensor. For token "
                "ids pass the embeddings, or attribute to the embedding layer, as in "
                "LayerLRPTranspose(model, model.embedding)"
            )
        if value.numel() == 0:
            raise InputValueError(f"input {position} is empty: its shape is {tuple(value.shape)}")
        # A sum shows both in a tenth of the time; but the sum of finite values may be infinite, too. It is tested here,
        # as `isfinite` takes four launches on a GPU.
        if has_gradient(value) and not cmath.isfinite(value.sum().item()) and not bool(value.isfinite().all()):
            raise InputValueError(f"input {position} holds NaN or infinite values: clean it before attributing")
