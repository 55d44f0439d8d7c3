"""Activation maximisation in the code space of a generator (Nguyen et al. 2016, 2017).

    z* = argmax_z f(G(z)),        z kept where the generator was trained

f is a unit of a classifier and G draws images of codes. On digits most random starting codes are not worth climbing
from: the ascent makes the classifier certain and leaves the digit unreadable. So each run looks at `candidates` random
codes, takes the best, and climbs a few steps from there, under a prior (`gan.priors`).

>>> result = CodeSpaceAM(classifier, load("dcgan-mnist").generator).maximize(target=0, runs=16, seed=0)
>>> result.images                                                                          # (16, 1, 28, 28) in [0, 1]
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .ascent import CHUNK, Adam, Result, Settings
from .maximizer import ActivationMaximizer, random_codes
from .priors import Prior, prior_of
from .targets import Activations, Transform, Units, evaluating

__all__ = ["CodeSpaceAM", "Result"]


class CodeSpaceAM(ActivationMaximizer):
    """Finds codes whose images activate a unit most."""

    def __init__(
        self,
        classifier: nn.Module,
        generator: nn.Module,
        layer: nn.Module | str | None = None,
        prior: str | Prior | None = "shell",
        transform: Transform | None = None,
        *,
        code_size: int | None = None,
        candidates: int = 24,
        learning_rate: float = 0.03,
    ) -> None:
        """
        Args:
            classifier: any module that takes images; parameters, modes and buffers are left as they are.
            generator: any module that maps codes `(N, d)`, of which N(0, I) is typical, to images `(N, C, H, W)` in
                [0, 1]; likewise.
            layer: whose units are maximised: a module of the classifier, or its name; None is the classifier's output.
            prior: "shell", "gaussian", "box", "ppgn", a `Prior`, or None.
            transform: from the generator's images to the classifier's input (a resize, a normalisation).
            code_size: d, for a generator without an attribute of this name.
            candidates: random codes per run of which the best is where it starts.
            learning_rate: of Adam; codes have entries near 1.

        Raises:
            ValueError: the generator's images do not fit the classifier, there is no such layer or prior, the length of
                codes is not known, or a number is out of range.
        """
        size = code_size if code_size is not None else getattr(generator, "code_size", None)
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"the {type(generator).__name__} does not say how long its codes are: pass code_size=")
        if candidates < 1:
            raise ValueError(f"candidates={candidates}: at least one starting code per run is needed")
        if not learning_rate > 0:
            raise ValueError(f"learning_rate={learning_rate}: it must be above 0")
        self.classifier, self.generator = classifier, generator
        self.networks, self.code_shape = (generator, classifier), (size,)
        self.prior, self.candidates, self.learning_rate = prior_of(prior), candidates, learning_rate
        self.activations = Activations(classifier, layer, transform, self._example())

    def start(self, units: Units, randoms: list[torch.Generator]) -> Tensor:
        """Of each run's `candidates` random codes the one whose class leads most, or whose unit is largest `(n, d)`."""
        codes = random_codes((self.candidates, *self.code_shape), randoms, self.like)
        if self.candidates == 1:
            return codes[:, 0]
        runs = torch.arange(len(codes)).repeat_interleave(self.candidates)
        best = self.values(units.leads, codes.flatten(0, 1), runs).view(len(codes), -1).argmax(dim=1)
        return codes[torch.arange(len(codes)), best]

    def values(self, read: Callable[[Tensor, Tensor], Tensor], codes: Tensor, runs: Tensor) -> Tensor:
        """What `read` (such as `Units.select`) says of the images of codes `(m, d)`, for `runs` `(m,)`: `(m,)`."""
        with evaluating(*self.networks), torch.no_grad():
            return torch.cat(
                [
                    read(self.activations(self.render(some)), which)
                    for some, which in zip(codes.split(CHUNK), runs.split(CHUNK), strict=True)
                ]
            )

    def render(self, codes: Tensor) -> Tensor:
        return self.generator(codes)

    def move(self, codes: Tensor, share: float, randoms: list[torch.Generator]) -> Tensor:
        noise = random_codes(self.code_shape, randoms, codes) if self.prior.noisy else None
        return self.prior.move(codes, share, noise)

    @torch.inference_mode(False)
    def invert(self, images: Tensor, steps: int = 200, seed: int = 0, candidates: int = 256) -> Tensor:
        """Codes whose images are near the given ones: least squares by Adam, from the best of random codes, and prior.

        Args:
            images: `(n, C, H, W)` in [0, 1], or one `(C, H, W)`.
            steps: of Adam.
            seed: of the first image's random codes; the next images have the next numbers.
            candidates: random codes per image of which the best is where it starts.

        Returns:
            Codes `(n, d)`, those of the nearest images met.

        Raises:
            ValueError: images of another shape than the generator's, or a number is out of range.
        """
        images = images.detach().to(self.like)
        images = images.unsqueeze(0) if images.ndim == 3 else images
        if images.shape[1:] != self.image_shape:
            raise ValueError(f"images {tuple(images.shape)} cannot be inverted: the generator's are {self.image_shape}")
        settings = Settings(steps, None, 1, 0.0)
        randoms = [torch.Generator().manual_seed(seed + index) for index in range(len(images))]
        codes = self._nearest(images, random_codes((candidates, *self.code_shape), randoms, self.like))
        adam, best, least = Adam(codes), codes, torch.full((len(codes),), torch.inf).to(codes)
        for step in range(1, steps + 1):
            with evaluating(self.generator):
                leaf = codes.detach().requires_grad_()
                errors = (self.render(leaf) - images).square().flatten(1).mean(dim=1)
                (slope,) = torch.autograd.grad(errors.sum(), leaf)
            better = errors.detach() < least
            best, least = torch.where(better[:, None], leaf.detach(), best), torch.minimum(errors.detach(), least)
            share = settings.rate(step)
            codes = self.move(codes - 2 * self.learning_rate * share * adam.direction(slope), share, randoms)
        return best

    def _nearest(self, images: Tensor, codes: Tensor) -> Tensor:
        """Of the candidates `(n, m, d)` of each image the one with the nearest image `(n, d)`."""
        with evaluating(self.generator), torch.no_grad():
            found = [
                some[(self.render(some) - image).square().flatten(1).sum(dim=1).argmin()]
                for image, some in zip(images, codes, strict=True)
            ]
        return torch.stack(found)

    def _example(self) -> Tensor:
        """The image `(1, C, H, W)` of the code 0."""
        code = torch.zeros(1, *self.code_shape).to(self.like)
        with evaluating(*self.networks), torch.no_grad():
            try:
                images = self.generator(code)
            except RuntimeError as error:
                raise ValueError(
                    f"the {type(self.generator).__name__} does not take codes {tuple(code.shape)} "
                    f"({str(error).splitlines()[0]}): pass code_size=, the length of its codes"
                ) from error
        if not isinstance(images, Tensor) or images.ndim != 4 or len(images) != 1:
            shape = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
            raise ValueError(f"the {type(self.generator).__name__} makes {shape} of one code: images are (1, C, H, W)")
        self.image_shape = tuple(images.shape[1:])
        return images
