"""The decoder of a pretrained autoencoder as a generator.

A decoder is not trained on codes N(0, I): latents of photographs have means, correlated channels, and neighbours that
are alike. `LatentGenerator` maps standard normal codes to latents with the statistics of encoded photographs,

    y = mean + A F^-1(s F(z)),        A A^T = covariance of the channels,    s(f)^2 ~ |f|^-2a

and decodes these, so that priors, random starts and best-of-n mean the same as for a GAN.
"""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from plugin.devices import as_tensor

from .activations import as_module, evaluating, tensor_of
from .generated import CLIPPED
from .spaces import frequencies

# Number of latents that are decoded to check the range of images.
_DECODED = 4


class LatentGenerator(nn.Module):
    """Codes `(N, c, h, w)` with N(0, I) to images: a generator for `CodeSpaceAM`, and a space for `ImageSpaceAM`.

    Args:
        decoder: latents `(N, c, h, w)` to images; a module or a function.
        latents: those of photographs, from the encoder, `(M, c, h', w')`: their statistics are taken.
        size: (h, w) of the latents to make; by default that of `latents`.
        image_range: the decoder's black and white; there is a warning if photographs lie far beyond them.

    Attributes:
        code_size: (c, h, w).
        exponent: a, by which the latents' magnitudes fall with the frequency.

    Raises:
        ValueError: the latents are too few, not finite, or of another shape.

    >>> import torch
    >>> from torch import nn
    >>> from gan import LatentGenerator
    >>> decoder = nn.Sequential(nn.ConvTranspose2d(4, 3, 4, 4), nn.Sigmoid())
    >>> latents = torch.randn(30, 4, 8, 8)  # of photographs
    >>> generator = LatentGenerator(decoder, latents)
    >>> generator.code_size
    (4, 8, 8)
    """

    mean: Tensor
    mixing: Tensor
    scale: Tensor

    def __init__(
        self,
        decoder: nn.Module | Callable[[Tensor], Tensor],
        latents: Tensor,
        size: tuple[int, int] | None = None,
        image_range: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        super().__init__()
        latents = as_tensor(latents)
        if not bool(latents.isfinite().all()):
            raise ValueError("latents hold NaN or infinite values: give those that the encoder makes of photographs")
        if latents.ndim != 4 or latents[:, 0].numel() < 2 * latents.shape[1]:
            raise ValueError(f"latents {tuple(latents.shape)}: give (M, c, h, w), of some tens of photographs")
        self.decoder, (self.low, self.high) = as_module(decoder), image_range
        height, width = size or (latents.shape[2], latents.shape[3])
        self.code_shape: tuple[int, ...] = (latents.shape[1], height, width)
        self.code_size = self.code_shape
        self.learning_rate = 0.05
        values = latents.detach().float()
        rows = values.permute(1, 0, 2, 3).flatten(1)
        mean = rows.mean(dim=1)
        spread, axes = torch.linalg.eigh(torch.cov(rows))
        deviation = spread.clamp(min=1e-8).sqrt()
        white = torch.einsum("kc,nchw->nkhw", axes.T / deviation[:, None], values - mean.view(-1, 1, 1))
        self.exponent = _fall(white)
        scale = frequencies(height, width) ** -self.exponent
        self.register_buffer("mean", mean.view(-1, 1, 1))
        self.register_buffer("mixing", axes * deviation)
        self.register_buffer("scale", scale / _root_mean_square(scale, width))
        self._warn_of_clipping(latents)

    def _warn_of_clipping(self, latents: Tensor) -> None:
        """Warn of photographs far beyond the given black and white."""
        with evaluating(self.decoder), torch.no_grad():
            images = self._decoded(latents[:_DECODED])
        low, high = float(images.min()), float(images.max())
        slack = CLIPPED * (self.high - self.low)
        if low < self.low - slack or high > self.high + slack:
            warnings.warn(
                f"the decoder's images lie in [{low:.3g}, {high:.3g}], and image_range=({self.low:g}, {self.high:g}) "
                "clips them: give its black and white, such as (-1, 1)",
                stacklevel=3,
            )

    def _decoded(self, latents: Tensor) -> Tensor:
        """The decoder's images of latents, which are moved to its number type and device."""
        own = next((weight for weight in self.decoder.parameters() if weight.is_floating_point()), latents)
        images: Tensor = tensor_of(self.decoder(latents.to(own)))
        return images

    def latents(self, codes: Tensor) -> Tensor:
        """Latents with the statistics of the given ones.

        Args:
            codes: standard normal codes `(N, c, h, w)`.

        Returns:
            Latents in the same shape.
        """
        smooth = torch.fft.irfft2(torch.fft.rfft2(codes) * self.scale, s=self.code_shape[1:])
        return torch.einsum("ck,nkhw->nchw", self.mixing, smooth) + self.mean

    def forward(self, codes: Tensor) -> Tensor:
        """The decoder's images.

        Args:
            codes: standard normal codes `(N, c, h, w)`.

        Returns:
            Images `(N, C, H, W)` in [0, 1].
        """
        images = self._decoded(self.latents(codes.to(self.mean)))
        return ((images - self.low) / (self.high - self.low)).clamp(0, 1)

    def start(self, noise: Tensor) -> Tensor:
        """First codes of an ascent.

        Args:
            noise: standard normal numbers `(N, c, h, w)`, which are the codes.
        """
        return noise

    def render(self, codes: Tensor) -> Tensor:
        """The same as calling the generator, for `ImageSpaceAM`.

        Args:
            codes: standard normal codes `(N, c, h, w)`.

        Returns:
            Images `(N, C, H, W)` in [0, 1].
        """
        images: Tensor = self(codes)
        return images


def _fall(white: Tensor) -> float:
    """The exponent a of |F| ~ |f|^-a in maps `(n, c, h, w)`, by least squares on logarithms."""
    height, width = white.shape[2:]
    power = torch.fft.rfft2(white).abs().square().mean(dim=(0, 1)).flatten()[1:]
    logs = frequencies(height, width).flatten()[1:].log()
    centred = logs - logs.mean()
    if not bool(centred.any()):  # one frequency or none
        return 0.0
    return float(-(centred * power.log()).sum() / centred.square().sum() / 2)


def _root_mean_square(scale: Tensor, width: int) -> Tensor:
    """Root mean square over all coefficients; those of `rfft2` `(h, width // 2 + 1)` leave out repeated ones."""
    weight = torch.full_like(scale, 2.0)
    weight[:, 0] = 1
    if width % 2 == 0:
        weight[:, -1] = 1
    square: Tensor = (weight * scale.square()).sum() / weight.sum()
    return square.sqrt()
