"""Adversarial training in one folder: reproducible from a seed, resumable, never losing its last good checkpoint.

The non-saturating loss (Goodfellow et al. 2014) with the R1 penalty (Mescheder, Geiger and Nowozin 2018) on real images
x and codes z ~ N(0, I):

    discriminator:  softplus(-D(x)) + softplus(D(G(z))) + penalty / 2 |grad_x D(x)|^2
    generator:      softplus(-D(G(z)))

The penalty is evaluated every `penalty_every` steps with that many times its weight (Karras et al. 2020). The rate is
constant for half of the steps and then falls to zero. An exponential moving average of the generator is stored.
"""

import copy
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from plugin.devices import choose_device
from plugin.files import replacing, require_writable, write_json
from plugin.models.checkpoints import save_checkpoint
from plugin.models.training_runs import FILE_NAME, Checkpoints, TrainingFile
from plugin.seeds import normal, random_generator, seeded, uniform

from ..classifiers import Classifier, check_fit
from ..data import ImageSet
from ..judging.generator_quality import evaluate, require_torchmetrics
from ..loading import load
from ..networks import NETWORKS, Discriminator, Generator
from .precision import mixed_precision
from .recipes import Recipe


def squared_slope(logits: Tensor, images: Tensor) -> Tensor:
    """Mean over the batch of |grad_x D(x)|^2, to be differentiated itself."""
    (slope,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return slope.square().sum(dim=(1, 2, 3)).mean()


class Trainer:
    """One run: `training.pt` in the folder holds its whole state, so that a resumed run ends bit for bit the same.

    Args:
        recipe: the network and the settings of its training.
        data: the training images.
        folder: gets the run's files.
        device: of the computation; default CUDA, else MPS, else the CPU. A run may be resumed on another device.

    Raises:
        ValueError: the network cannot make the shape, or a conditional recipe is given for images without classes.
    """

    def __init__(self, recipe: Recipe, data: ImageSet, folder: Path, device: str | torch.device | None = None) -> None:
        self.recipe, self.data, self.folder, self.device = recipe, data, folder, choose_device(device)
        settings = {**asdict(recipe), "data": data.name, "images": len(data)}
        self.file = TrainingFile(folder / FILE_NAME, settings, data.sha256())
        self.arguments = {"image_shape": data.image_shape, **recipe.arguments}
        if recipe.conditional:
            if data.labels is None:
                raise ValueError(f"{data.name} has no classes to tell the networks: put the pictures in class folders")
            self.arguments["classes"] = len(data.classes)
        with seeded(recipe.seed), torch.device("cpu"):  # the initial weights are the same on every device
            network = NETWORKS[recipe.architecture](**self.arguments)
        network.to(self.device, memory_format=torch.channels_last)
        self.network: nn.Module = network
        self.generator: Generator = network.generator
        self.discriminator: Discriminator = network.discriminator
        self.average = copy.deepcopy(self.generator).requires_grad_(False).eval()
        self.optimizers = [
            torch.optim.Adam(
                part.parameters(), recipe.learning_rate, betas=(0.5, 0.99), fused=self.device.type != "mps"
            )
            for part in (self.discriminator, self.generator)
        ]
        self.random = random_generator(recipe.seed)
        self.step = 0
        self.history: list[dict[str, float]] = []

    def resume(self) -> None:
        """Continue the run in the folder, if there is one.

        Raises:
            ValueError: it is a run of another recipe or of other data, or its file is damaged.
        """
        state = self.file.read()
        if state is None:
            return
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        for optimizer, values in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(values)
        self.random.set_state(state["random"])
        self.step, self.history = state["step"], state["history"]

    def save(self) -> None:
        """Write everything that `resume` reads, atomically.

        Raises:
            OSError: the file cannot be written.
            ValueError: another run has written to the folder meanwhile.
        """
        self.file.write(
            {
                "network": self.network.state_dict(),
                "average": self.average.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
                "random": self.random.get_state(),
                "step": self.step,
                "history": self.history,
            }
        )

    def batch(self) -> tuple[Tensor, Tensor | None]:
        """Real images in [0, 1], drawn with replacement, and their labels if the networks know them."""
        chosen = torch.randint(len(self.data), (self.recipe.batch_size,), generator=self.random, device="cpu")
        images = self.data.images[chosen].to(self.device).float() / 255
        if self.recipe.mirror:
            mirrored = uniform(self.random, len(images), 1, 1, 1).to(self.device) < 0.5
            images = torch.where(mirrored, images.flip(3), images)
        labels = None
        if self.recipe.conditional and self.data.labels is not None:
            labels = self.data.labels[chosen].to(self.device)
        return images.contiguous(memory_format=torch.channels_last), labels

    def codes(self) -> Tensor:
        codes = normal(self.random, self.recipe.batch_size, self.generator.code_size)
        return codes.to(self.device)

    def train_step(self) -> dict[str, float]:
        """One update of each network; returns the losses.

        Raises:
            FloatingPointError: a loss is not finite; its network and the files stay unchanged.
        """
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.recipe.rate(self.step)
        losses = {"discriminator": self.update_discriminator(), "generator": self.update_generator()}
        self.update_average()
        self.step += 1
        return losses

    def update_discriminator(self) -> float:
        (real, labels), codes = self.batch(), self.codes()
        penalised = self.step % self.recipe.penalty_every == 0
        real.requires_grad_(penalised)
        with mixed_precision(self.recipe.precision == "bfloat16", self.device):
            with torch.no_grad():
                made = self.generator(codes)
            on_real = self.discriminator(real, labels).float()
            on_made = self.discriminator(made, self.generator.labels(codes)).float()
        loss = F.softplus(-on_real).mean() + F.softplus(on_made).mean()
        total = loss
        if penalised:
            weight = self.recipe.penalty * self.recipe.penalty_every
            total = loss + weight / 2 * squared_slope(on_real, real)
        self.apply(total, self.optimizers[0], "discriminator")
        return loss.item()

    def update_generator(self) -> float:
        self.discriminator.requires_grad_(False)
        with mixed_precision(self.recipe.precision == "bfloat16", self.device):
            codes = self.codes()
            on_made = self.discriminator(self.generator(codes), self.generator.labels(codes)).float()
        loss = F.softplus(-on_made).mean()
        self.apply(loss, self.optimizers[1], "generator")
        self.discriminator.requires_grad_(True)
        return loss.item()

    @torch.no_grad()
    def update_average(self) -> None:
        """Follow the generator, closely in the first steps, so that its random start is soon forgotten."""
        kept = min(self.recipe.average_decay, (1 + self.step) / (10 + self.step))
        pairs = zip(self.average.state_dict().values(), self.generator.state_dict().values(), strict=True)
        for average, current in pairs:
            if average.is_floating_point():
                average.lerp_(current, 1 - kept)
            else:
                average.copy_(current)

    def apply(self, loss: Tensor, optimizer: torch.optim.Optimizer, name: str) -> None:
        if not loss.isfinite():
            last = f"the checkpoint of {self.folder} stays" if self.file.path.exists() else "nothing was written"
            raise FloatingPointError(
                f"the {name}'s loss is {loss.item()} at step {self.step + 1}: lower the learning rate; {last}"
            )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def run(self, save_every: int = 250, save_seconds: float = 120, report_every: int = 25) -> None:
        """Train to the end of the recipe, with a progress bar, a checkpoint and a grid of samples now and then.

        Args:
            save_every: steps between two checkpoints.
            save_seconds: the longest time between two checkpoints, where steps are slow.
            report_every: steps between two entries of the history.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed; the current step is finished and saved first.
        """
        steps = range(self.step, self.recipe.steps)
        bar = tqdm(steps, self.recipe.architecture, self.recipe.steps, initial=self.step, unit="step", mininterval=1)
        with Checkpoints(self._save_with_samples, save_seconds, save_every) as checkpoints:
            for _ in bar:
                losses = self.train_step()
                if self.step % report_every == 0:
                    self.history.append({"step": self.step, **losses})
                    bar.set_postfix({name: f"{value:.3f}" for name, value in losses.items()}, refresh=False)
                checkpoints.after(self.step, finished=self.step == self.recipe.steps)

    def _save_with_samples(self) -> None:
        self.save()
        self.write_samples()

    @torch.inference_mode()
    def write_samples(self, count: int = 100) -> None:
        """Write `samples.png`, always from the same codes."""
        from torchvision.utils import save_image

        random = torch.Generator().manual_seed(0)
        codes = normal(random, count, self.generator.code_size)
        with replacing(self.folder / "samples.png") as partial:
            save_image(self.average(codes.to(self.device)), str(partial), nrow=10)

    def store(self, path: Path, scores: Mapping[str, float]) -> dict[str, Any]:
        """Write the averaged generator and the discriminator as float16 safetensors; returns the metadata."""
        metadata = {
            "architecture": self.recipe.architecture,
            "arguments": self.arguments,
            "data": self.data.name,
            "seed": self.recipe.seed,
            "steps": self.step,
            "recipe": asdict(self.recipe),
            "scores": dict(scores),
            "history": self.history[:: max(1, len(self.history) // 100)],
            "torch": torch.__version__,
        }
        pair = nn.ModuleDict({"generator": self.average, "discriminator": self.discriminator})
        save_checkpoint(path, pair, metadata)
        return metadata


def train(
    recipe: Recipe,
    data: ImageSet,
    test: ImageSet,
    folder: str | Path,
    classifier: Classifier | None = None,
    save_every: int = 250,
    device: str | torch.device | None = None,
) -> dict[str, Any]:
    """Train a GAN, or finish the run in `folder`, measure it and store it.

    Args:
        recipe: the network and the settings of its training; `RECIPES` holds those of the shipped checkpoints.
        data: the images to learn.
        test: images for the scores only.
        folder: gets `training.pt`, `history.json`, `samples.png` and `ARCHITECTURE.safetensors`.
        classifier: of these images, for the scores (see `gan.judging.generator_quality.evaluate`).
        save_every: steps between two checkpoints.
        device: of the computation; default CUDA, else MPS, else the CPU.

    Returns:
        The metadata of the checkpoint, `scores` among them.

    Raises:
        ValueError: the network cannot make such images, the classifier does not fit, or the folder holds another run.
        FloatingPointError: the training diverged; the last checkpoint stays.
        OSError: a file cannot be written, as on a full disk; the last checkpoint stays.
        MissingExtraError: a classifier is given, and torchmetrics is not installed.

    >>> from tempfile import mkdtemp
    >>> import torch
    >>> from gan import Recipe, load, train
    >>> from gan.data import ImageSet
    >>> pictures = ImageSet("noise", torch.randint(256, (64, 1, 8, 8), dtype=torch.uint8))  # yours: gan.data.read
    >>> folder = mkdtemp()
    >>> recipe = Recipe("mlp", {"code_size": 4, "hidden": (8,)}, steps=2, batch_size=8)
    >>> metadata = train(recipe, pictures, pictures, folder)
    >>> load(f"{folder}/mlp.safetensors").generator(torch.randn(5, 4)).shape
    torch.Size([5, 1, 8, 8])
    """
    if classifier is not None:
        check_fit(classifier, data)
        require_torchmetrics()  # before hours of training
    require_writable(Path(folder) / FILE_NAME)
    trainer = Trainer(recipe, data, Path(folder), device)
    trainer.resume()
    trainer.run(save_every)
    write_json(trainer.folder / "history.json", trainer.history)
    path = trainer.folder / f"{recipe.architecture}.safetensors"
    trainer.store(path, {})
    generator = load(path).generator.to(trainer.device)
    return trainer.store(path, evaluate(generator, data, test, classifier))
