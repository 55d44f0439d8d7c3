"""Batch norm while an all convolutional network is trained, folded into its convolutions before it is stored."""

import copy
from typing import cast

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from .all_cnn import ClassMapNetwork


def add_batch_norm(network: ClassMapNetwork) -> ClassMapNetwork:
    """Put batch norm after every convolution of `features` except the class maps'."""
    for name, module in network.features.named_children():
        if isinstance(module, nn.Conv2d) and name != "class_conv":
            setattr(network.features, name, NormalisedConvolution(module))
    return network


class NormalisedConvolution(nn.Sequential):
    """A convolution followed by batch norm."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__(convolution, nn.BatchNorm2d(convolution.out_channels))

    def folded(self) -> nn.Conv2d:
        """A single convolution that computes the same in eval mode."""
        return fuse_conv_bn_eval(cast(nn.Conv2d, self[0]), cast(nn.BatchNorm2d, self[1]))


def fold_batch_norm(network: ClassMapNetwork) -> ClassMapNetwork:
    """A copy in eval mode in which each convolution has absorbed its batch norm: the architecture of the paper."""
    folded = copy.deepcopy(network).eval()
    for name, module in folded.features.named_children():
        if isinstance(module, NormalisedConvolution):
            setattr(folded.features, name, module.folded())
    return folded
