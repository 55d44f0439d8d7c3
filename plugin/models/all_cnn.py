"""The two CIFAR-10 networks that the paper compares.

Table 1 of *Striving for Simplicity: The All Convolutional Net* (Springenberg et al. 2015, arXiv:1412.6806), model C:
the base network reduces resolution by overlapping 3x3 max-pooling with stride 2; All-CNN-C replaces each pooling by a
convolution of stride 2 that has as many channels. Both end in a 1x1 convolution to one map per class, its ReLU, and
the average over the 6x6 positions. There is no fully connected layer, so inputs larger than 32x32 are accepted.
"""

from collections import OrderedDict

from torch import Tensor, nn


class ClassMapNetwork(nn.Module):
    """`features` to one non-negative map per class; the logits are the means of the maps."""

    def __init__(self, features: "OrderedDict[str, nn.Module]") -> None:
        super().__init__()
        self.features = nn.Sequential(features)
        for name, module in self.features.named_children():
            if isinstance(module, nn.Conv2d) and module.bias is not None:
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                # The last ReLU has no gradient if a class map is negative everywhere: each map starts above zero.
                nn.init.constant_(module.bias, 0.5 if name == "class_conv" else 0.0)

    def forward(self, images: Tensor) -> Tensor:
        """Logits `(N, classes)`, each >= 0.

        Args:
            images: normalised, `(N, 3, H, W)`.
        """
        result: Tensor = self.features(images).mean(dim=(2, 3))
        return result


def _convolution(
    index: int, inputs: int, outputs: int, kernel_size: int = 3, stride: int = 1, padding: int = 1
) -> list[tuple[str, nn.Module]]:
    convolution = nn.Conv2d(inputs, outputs, kernel_size, stride, padding)
    return [(f"conv{index}", convolution), (f"relu{index}", nn.ReLU())]


def _head(first: int, classes: int) -> list[tuple[str, nn.Module]]:
    """The layers that both networks share: 3x3 without padding (8x8 to 6x6), 1x1, 1x1 to the class maps."""
    return [
        *_convolution(first, 192, 192, padding=0),
        *_convolution(first + 1, 192, 192, kernel_size=1, padding=0),
        ("class_conv", nn.Conv2d(192, classes, kernel_size=1)),
        ("class_relu", nn.ReLU()),
    ]


class AllCNNC(ClassMapNetwork):
    """All-CNN-C: nine convolutions, the third and the sixth with stride 2, no pooling (1.4 million parameters).

    Args:
        classes: number of class maps.
        dropout: rates on the input and after each of the two reductions; the paper uses (0.2, 0.5).

    >>> import torch
    >>> from plugin.models import AllCNNC
    >>> AllCNNC(classes=7).eval()(torch.randn(2, 3, 32, 32)).shape
    torch.Size([2, 7])
    """

    def __init__(self, classes: int = 10, dropout: tuple[float, float] = (0.2, 0.5)) -> None:
        super().__init__(
            OrderedDict(
                [
                    ("input_dropout", nn.Dropout(dropout[0])),
                    *_convolution(1, 3, 96),
                    *_convolution(2, 96, 96),
                    *_convolution(3, 96, 96, stride=2),
                    ("dropout3", nn.Dropout(dropout[1])),
                    *_convolution(4, 96, 192),
                    *_convolution(5, 192, 192),
                    *_convolution(6, 192, 192, stride=2),
                    ("dropout6", nn.Dropout(dropout[1])),
                    *_head(7, classes),
                ]
            )
        )


class ModelC(ClassMapNetwork):
    """Base model C: seven convolutions and two overlapping max-poolings (1.0 million parameters).

    Args:
        classes: number of class maps.
        dropout: rates on the input and after each of the two reductions; the paper uses (0.2, 0.5).

    >>> import torch
    >>> from plugin.models import ModelC
    >>> ModelC(classes=7).eval()(torch.randn(2, 3, 48, 48)).shape
    torch.Size([2, 7])
    """

    def __init__(self, classes: int = 10, dropout: tuple[float, float] = (0.2, 0.5)) -> None:
        super().__init__(
            OrderedDict(
                [
                    ("input_dropout", nn.Dropout(dropout[0])),
                    *_convolution(1, 3, 96),
                    *_convolution(2, 96, 96),
                    ("pool2", nn.MaxPool2d(3, stride=2, padding=1)),
                    ("dropout2", nn.Dropout(dropout[1])),
                    *_convolution(3, 96, 192),
                    *_convolution(4, 192, 192),
                    ("pool4", nn.MaxPool2d(3, stride=2, padding=1)),
                    ("dropout4", nn.Dropout(dropout[1])),
                    *_head(5, classes),
                ]
            )
        )
