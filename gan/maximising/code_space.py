"""Activation maximisation in the code space of a generator (Nguyen et al. 2016, 2017).

    z* = argmax_z f(G(z)),        z kept where the generator was trained

f is a unit of a classifier and G draws images of codes. On digits most random starting codes are not worth climbing
from: the ascent makes the classifier certain and leaves the digit unreadable. So each run looks at `candidates` random
codes, takes the best, and climbs a few steps from there, under a prior (`gan.maximising.priors`).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from plugin.devices import as_tensor
from plugin.seeds import random_generator, uniform

from ..reals import images_and_labels
from .activations import Activations, Transform, evaluating, layer_in, placed
from .batching import in_blocks, rows_of_block
from .climbing import like_rows
from .generated import Generated, Range
from .maximizer import ActivationMaximizer, positive, random_codes, whole
from .priors import Prior, prior_of
from .targets import Units

# The most random codes that a run tries for its start, over `candidates`: a class that one code in 50 shows is then
# found by 199 runs of 200.
_PATIENCE = 32
# Number of random images that measure the classifier's usual leads, and the quantile that counts as clear.
_SAMPLED, _CLEAREST = 64, 0.75
# Share of a code's entries that a leap draws anew.
_REDRAWN = 0.5


class CodeSpaceAM(ActivationMaximizer):
    """Finds codes whose images activate a unit most.

    >>> from gan import CodeSpaceAM, load, load_classifier
    >>> am = CodeSpaceAM(load_classifier("mnist-classifier"), load("gan-mnist").generator)
    >>> result = am.maximize(target=[3, 8], seed=0)
    >>> result.images.shape, result.probabilities[-1].min() > 0.9
    (torch.Size([2, 1, 28, 28]), tensor(True))
    """

    leaps = True

    def __init__(
        self,
        classifier: nn.Module | Callable[[Tensor], Any],
        generator: nn.Module | Callable[[Tensor], Tensor],
        layer: nn.Module | str | None = None,
        prior: str | Prior | None = "shell",
        transform: Transform | None = None,
        *,
        code_size: int | tuple[int, ...] | None = None,
        image_range: Range | None = None,
        head: str | None = None,
        candidates: int = 8,
        learning_rate: float = 0.15,
        device: str | torch.device | None = None,
        exact: bool = True,
    ) -> None:
        """
        Args:
            classifier: any module or function that takes images; parameters, modes and buffers are left as they are.
                Its output may be logits, one logit, or that of a softmax, log-softmax or sigmoid.
            generator: any module or function that maps codes `(N, d)`, `(N, d, 1, 1)` or `(N, C, H, W)`, distributed as
                N(0, I), to images `(N, C, H, W)`; left as it is likewise.
            layer: a module of the classifier, or its name, whose units are maximised; None for the output.
            prior: "shell", "gaussian", "box", "ppgn", a `Prior`, or None.
            transform: from images in [0, 1] to the classifier's input (a resize, a normalisation).
            code_size: d, or the shape of a code, for a generator without an attribute of this name.
            image_range: the generator's values for black and white, such as (-1, 1) for a tanh. By default they are
                measured, and a warning names the assumed range if it is not [0, 1].
            head: the kind of the classifier's output: "logits", "softmax", "log-softmax" or "sigmoid"; by default it
                is detected.
            candidates: random codes per run, which starts from the best of them. A run for a class instead starts
                from the first random code that is clearly of its class, of at most 32 times as many. 1 means a random
                start.
            learning_rate: the root mean square of the first step; codes have entries near 1.
            device: of the computation, such as "cuda"; networks on other devices are copied. By default networks are
                used on their own devices.
            exact: a run in a batch is, bit for bit, the single run with its seed. False saves time where there are few
                runs: a single run then does not cost as much as 16.

        Raises:
            ValueError: the generator's images do not fit the classifier, there is no such layer, prior or head, the
                length of codes is not known, or a number is out of range.
        """
        if whole("candidates", candidates) < 1:
            raise ValueError(f"candidates={candidates}: at least one starting code per run is needed")
        self.classifier, self.generator = placed(classifier, device), placed(generator, device)
        self.networks = (self.generator, self.classifier)
        self.generated = Generated(
            self.generator, code_size, image_range, self.like, getattr(generator, "code_size", None)
        )
        self.code_shape, self.image_shape = self.generated.code_shape, self.generated.image_shape
        self.prior, self.candidates = prior_of(prior), candidates
        self.learning_rate = positive("learning_rate", learning_rate)
        self.noisy = self.prior.noisy
        self.rows = rows_of_block(self.image_shape, self.like.device)
        self.exact = exact
        own = layer_in(self.classifier, classifier, layer)
        self.activations = Activations(self.classifier, own, transform, self.generated.example, head)
        self.settle_rows()

    @property
    def draws(self) -> bool:
        return super().draws or self.generated.held.draws

    def start(self, units: Units, randoms: list[torch.Generator], clear: Tensor) -> tuple[Tensor, Tensor]:
        """The first code that is clearly of a run's class, or the best for another unit; and the number of codes tried.

        For a class, codes are drawn one at a time, later a few at a time, until the class leads the others by `clear`,
        or by the lead of the first choice in the clearest quarter of random images if that is less. If none does, the
        run starts from the code with the largest lead. For another unit, more codes are drawn only while all of them
        give one value: the unit is silent.
        """
        codes = self.like.new_zeros(len(randoms), *self.code_shape)
        tried = torch.zeros(len(randoms), dtype=torch.int64, device="cpu")
        searching = units.is_class & (self.candidates > 1)
        if bool(searching.any()):
            clear = self._reachable(units, clear.to(codes))
        for runs, searches in ((searching, True), (~searching, False)):
            self._search(units, randoms, clear.to(codes), runs.nonzero().flatten(), searches, codes, tried)
        return codes, tried

    def _search(
        self,
        units: Units,
        randoms: list[torch.Generator],
        clear: Tensor,
        drawing: Tensor,
        searching: bool,
        codes: Tensor,
        tried: Tensor,
    ) -> None:
        """Find starts for the runs `drawing`; write them to `codes` `(n, ...)` and the numbers of draws to `tried`."""
        most, total = _PATIENCE * self.candidates if self.candidates > 1 else 1, 0
        highest = codes.new_full((len(codes),), -torch.inf)
        lowest = -highest
        while len(drawing) and total < most:
            at_once = min(1 + total // self.candidates, most - total) if searching else self.candidates
            drawn = random_codes((at_once, *self.code_shape), [randoms[run] for run in drawing], self.like)
            drawn = self._on_prior(drawn.flatten(0, 1)).view_as(drawn)
            found = self.values(units.leads, drawn.flatten(0, 1), drawing.repeat_interleave(at_once)).to(codes)
            found = found.view(len(drawing), -1)
            lead, best = found.max(dim=1)
            better = like_rows(lead > highest[drawing], codes)
            codes[drawing] = torch.where(better, drawn[torch.arange(len(drawing), device="cpu"), best], codes[drawing])
            highest[drawing] = torch.maximum(lead, highest[drawing])
            lowest[drawing] = torch.minimum(found.amin(dim=1), lowest[drawing])
            total += at_once
            tried[drawing] = total
            on = highest < clear if searching else highest <= lowest
            drawing = drawing[on[drawing].cpu()]

    def _reachable(self, units: Units, clear: Tensor) -> Tensor:
        """The leads `(n,)`, limited to the lead in the clearest quarter of random images, which are always the same.

        A classifier trained with label smoothing gives no image the lead that other classifiers give every image.
        """
        random = torch.Generator().manual_seed(0)
        drawn = self._on_prior(random_codes((_SAMPLED, *self.code_shape), [random], self.like).squeeze(0))
        usual = self.values(
            lambda activations, _: units.first_leads(activations), drawn, torch.arange(_SAMPLED, device="cpu")
        )
        lead = usual.quantile(_CLEAREST).to(clear)
        return torch.minimum(clear, lead) if lead > 0 else clear

    def values(self, read: Callable[[Tensor, Tensor], Tensor], codes: Tensor, runs: Tensor) -> Tensor:
        """Values `(m,)` by `read` (such as `Units.select`) at the images of codes `(m, d)`, for `runs` `(m,)`."""
        values: Tensor
        with evaluating(*self.networks), torch.no_grad():
            (values,) = self.blocks(lambda some, which: [read(self.activations(self.render(some)), which)], codes, runs)
        return values

    def render(self, codes: Tensor) -> Tensor:
        return self.generated(codes)

    def move(self, codes: Tensor, share: Tensor, randoms: list[torch.Generator]) -> Tensor:
        moved: Tensor
        if self.prior.noisy:
            noise = random_codes(self.code_shape, randoms, codes)
            (moved,) = in_blocks(lambda *rows: [self.prior.move(rows[0], rows[1], rows[2])], codes, share, noise)
        else:
            (moved,) = in_blocks(lambda *rows: [self.prior.move(rows[0], rows[1], None)], codes, share)
        return moved

    def leap(self, codes: Tensor, randoms: list[torch.Generator]) -> Tensor:
        drawn = random_codes(self.code_shape, randoms, codes)
        chosen = torch.stack([uniform(random, *self.code_shape) for random in randoms]) < _REDRAWN
        return self._on_prior(torch.where(chosen.to(codes.device), drawn, codes))

    def _on_prior(self, codes: Tensor) -> Tensor:
        """Codes `(n, d)` after a full move of the prior without noise."""
        moved: Tensor
        (moved,) = in_blocks(lambda some: [self.prior.move(some, 1.0, None)], codes)
        return moved

    @torch.inference_mode(False)
    def invert(self, images: Tensor, steps: int = 200, seed: int = 0, candidates: int = 256) -> Tensor:
        """Codes whose images are near given ones: least squares by Adam from the best of random codes, under the prior.

        Args:
            images: `(n, C, H, W)` in [0, 1] or uint8, or one `(C, H, W)`.
            steps: of Adam.
            seed: of the first image's random codes; the next images have the next numbers.
            candidates: random codes per image; the search starts from the best of them.

        Returns:
            Codes `(n, d)` of the nearest images found.

        Raises:
            ValueError: images of another shape than the generator's or in another range, or a number is out of range.

        >>> import torch
        >>> from gan import CodeSpaceAM, load, load_classifier
        >>> generator = load("dcgan-mnist").generator
        >>> images = generator(torch.randn(2, 64)).detach()  # or real ones
        >>> CodeSpaceAM(load_classifier("mnist-classifier"), generator).invert(images, steps=5).shape
        torch.Size([2, 64])
        """
        images = as_tensor(images).detach()
        images = images.unsqueeze(0) if images.ndim == 3 else images
        if tuple(images.shape[1:]) != self.image_shape:
            raise ValueError(f"images {tuple(images.shape)} cannot be inverted: the generator's are {self.image_shape}")
        images = images_and_labels(images)[0].to(self.like)
        if steps < 1 or candidates < 1:
            raise ValueError(f"steps={steps} and candidates={candidates}: at least one of each is needed")
        randoms = [random_generator(seed + index) for index in range(len(images))]
        drawn = random_codes((candidates, *self.code_shape), randoms, self.like)
        codes = self._nearest(images, self._on_prior(drawn.flatten(0, 1)).view_as(drawn))
        best, least = codes.clone(), codes.new_full((len(codes),), torch.inf)
        codes.requires_grad_()
        adam = torch.optim.Adam([codes], lr=0.1)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
        for _ in range(steps):
            with evaluating(self.generator):
                (errors,) = self.blocks(self._errors, codes, images)
                (codes.grad,) = torch.autograd.grad(errors.sum(), codes)
            better = errors.detach() < least
            best, least = (
                torch.where(like_rows(better, codes), codes.detach(), best),
                torch.minimum(errors.detach(), least),
            )
            adam.step()
            schedule.step()
            with torch.no_grad():
                codes.copy_(self._on_prior(codes))
        return best

    def _errors(self, codes: Tensor, images: Tensor) -> list[Tensor]:
        """Mean squared differences `(n,)` between the images of codes and given ones."""
        return [(self.render(codes) - images).square().flatten(1).mean(dim=1)]

    def _nearest(self, images: Tensor, codes: Tensor) -> Tensor:
        """For each image the code with the nearest image `(n, d)`, out of `(n, m, d)`."""
        with evaluating(self.generator), torch.no_grad():
            found = [
                some[self.blocks(self._errors, some, image.expand(len(some), *image.shape))[0].argmin()]
                for image, some in zip(images, codes, strict=True)
            ]
        return torch.stack(found)
