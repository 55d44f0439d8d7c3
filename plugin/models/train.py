"""Train All-CNN-C or its max-pooling twin on CIFAR-10: `python -m plugin.models.train all-cnn-c --data FOLDER`.

The paper trains for 350 epochs on a GPU. To come close to its accuracy within an hour on two CPU cores, this recipe
differs in three ways, none of which affects the architecture of the stored network:

* every convolution except the last is followed by batch norm while training, and folded into its weight and bias at the
  end, so that the stored network is Table 1 of the paper, layer for layer;
* images grow from 16 to 32 pixels over the first half of the epochs (the networks average over positions, so any size
  fits);
* the stored weights are an exponential moving average, and the learning rate rises for a fifth of the steps and then
  falls linearly to zero. Images are flipped and shifted by up to four pixels; dropout is off by default.
"""

import argparse
import math
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from .. import statistics
from ..devices import choose_device
from ..files import require_writable, write_json
from ..seeds import global_states, seeded, set_global_states, uniform
from .all_cnn import ClassMapNetwork
from .checkpoints import load_weights, read_metadata, save_checkpoint
from .data import CIFAR10_CLASSES, cifar10, normalise
from .networks import NETWORKS
from .temporary_batch_norm import add_batch_norm, fold_batch_norm
from .training_runs import FILE_NAME, Checkpoints, TrainingFile, sha256_of, where_to_go_on

PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class Recipe:
    """All settings that decide the result.

    `precision` is "float32" or "bfloat16" (autocast). `started_from` is a checkpoint of the same network from which to
    continue, at a lower learning rate; its batch norms are folded already, and none are added again.

    Raises:
        ValueError: a setting is out of range.
    """

    network: str
    epochs: int = 10
    seed: int = 0
    batch_size: int = 128
    learning_rate: float = 0.1
    weight_decay: float = 5e-4
    dropout: tuple[float, float] = (0.0, 0.0)
    smallest: int = 16
    average_decay: float = 0.998
    precision: str = "float32"
    started_from: str | None = None

    def __post_init__(self) -> None:
        if self.network not in NETWORKS:
            raise ValueError(f"network={self.network!r}: choose one of {', '.join(sorted(NETWORKS))}")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision={self.precision!r}: choose one of {', '.join(PRECISIONS)}")
        for name, least, most in (("epochs", 1, None), ("batch_size", 2, None), ("smallest", 4, 32)):
            number = getattr(self, name)
            if number < least or (most is not None and number > most):
                raise ValueError(f"{name}={number}: give {least} or more" + (f", at most {most}" if most else ""))
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate={self.learning_rate}: give a finite number above 0")
        if not all(0 <= share < 1 for share in self.dropout):
            raise ValueError(f"dropout={self.dropout}: give shares from 0 on and below 1")
        if not abs(self.seed) < 2**48:  # with the number of an epoch it is a seed of PyTorch's
            raise ValueError(f"seed={self.seed}: give a number of less than 15 digits")

    def resolution(self, epoch: int) -> int:
        """Side of the training images in pixels, a multiple of 4: it grows over the first half of the epochs to 32."""
        progress = min(1.0, 2 * (epoch + 1) / self.epochs)
        result: int = 4 * round((self.smallest + (32 - self.smallest) * progress) / 4)
        return result

    def autocast(self, device: torch.device) -> torch.autocast:
        """The context in which the network runs in this precision on a device."""
        return torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bfloat16")


@dataclass
class Progress:
    """The progress of a run.

    Attributes:
        epoch: the number of finished epochs.
        batch: the number of finished batches of the next epoch.
        loss: sum over the images of these batches.
        history: measurements of the finished epochs.
    """

    epoch: int = 0
    batch: int = 0
    loss: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)


def augment(images: Tensor, size: int, random: torch.Generator) -> Tensor:
    """Flip half of the images, shift each by up to 4 pixels (zero padding), and shrink to `size` pixels.

    Args:
        images: normalised images `(N, 3, 32, 32)` on any device.
        size: side of the result in pixels.
        random: generator of the flips and shifts, on the processor: they are the same on every device.
    """
    count, side = images.shape[0], images.shape[-1]
    padded = F.pad(images, (4, 4, 4, 4))
    shifts = torch.randint(0, 9, (2, count, 1), generator=random, device="cpu")
    rows, columns = shifts + torch.arange(side, device="cpu")
    flip = uniform(random, count, 1) < 0.5
    columns = torch.where(flip, columns.flip(1), columns).to(images.device)
    rows, index = rows.to(images.device), torch.arange(count, device=images.device).view(-1, 1, 1)
    shifted = padded.permute(0, 2, 3, 1)[index, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    if size == side:
        return shifted
    return F.interpolate(shifted, size=(size, size), mode="bilinear", antialias=True, align_corners=False)


def accuracy(network: nn.Module, images: Tensor, labels: Tensor, batch_size: int = 500) -> float:
    """Share of uint8 images `(N, 3, H, W)`, on the network's device, that are classified correctly, in [0, 1], in
    float32 and eval mode."""
    inputs = (normalise(batch).contiguous(memory_format=torch.channels_last) for batch in images.split(batch_size))
    return statistics.accuracy(network, zip(inputs, labels.split(batch_size), strict=True))


class ClassMapTrainer:
    """One run in one folder: `training.pt` holds all that is needed to go on to the bit-same result.

    Args:
        recipe: the settings.
        folder: the folder of the run.
        images: uint8 `(N, 3, H, W)`, to learn from, on the device that computes. A run may go on on another one.
        labels: `(N,)`, there too.
    """

    def __init__(self, recipe: Recipe, folder: Path, images: Tensor, labels: Tensor) -> None:
        self.recipe, self.folder, self.progress = recipe, folder, Progress()
        self.images, self.labels, self.device = images, labels, images.device
        self.file = TrainingFile(folder / FILE_NAME, asdict(recipe), sha256_of(images, labels))
        # Draws the order, the flips and the shifts in an epoch; dropout draws from the global generators.
        self.random, self.order = torch.Generator(), torch.empty(0, dtype=torch.int64, device="cpu")
        torch.manual_seed(recipe.seed)
        with torch.device("cpu"):  # the first weights are the same wherever they are trained
            network = NETWORKS[recipe.network].build(classes=len(CIFAR10_CLASSES), dropout=recipe.dropout)
        if recipe.started_from is None:
            network = add_batch_norm(network)
        else:
            try:
                network.load_state_dict(load_weights(recipe.started_from))
            except RuntimeError as error:
                raise ValueError(f"{recipe.started_from} holds no weights of {recipe.network}") from error
        self.network = network.to(self.device).to(memory_format=torch.channels_last)
        average = torch.optim.swa_utils.get_ema_multi_avg_fn(recipe.average_decay)
        self.average = torch.optim.swa_utils.AveragedModel(self.network, multi_avg_fn=average, use_buffers=True)
        decayed = [p for p in self.network.parameters() if p.ndim > 1]
        free = [p for p in self.network.parameters() if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": free, "weight_decay": 0.0}]
        self.optimizer = torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=0.9, nesterov=True)

    def averaged(self) -> ClassMapNetwork:
        """The moving average of the network, as it is stored."""
        return fold_batch_norm(cast(ClassMapNetwork, self.average.module))

    def resume(self) -> None:
        """Continue the run in the folder.

        Raises:
            ValueError: it is one of another recipe or of other images, or its file is damaged.
        """
        state = self.file.read()
        if state is None:
            return
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.random.set_state(state["random"])
        set_global_states(state["dropout"], self.device)
        self.order = state["order"]
        self.progress = Progress(**state["progress"])

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
                "optimizer": self.optimizer.state_dict(),
                "random": self.random.get_state(),
                "dropout": global_states(self.device),
                "order": self.order,
                "progress": asdict(self.progress),
            }
        )

    def run(self, measure: Callable[[ClassMapNetwork], float], save_seconds: float = 120) -> None:
        """Train to the end of the recipe, with a checkpoint after each epoch and now and then within one.

        Args:
            measure: the accuracy of a network, for the history.
            save_seconds: from one checkpoint to the next.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed; the batch was finished and saved before.
        """
        progress = self.progress
        with Checkpoints(self.save, save_seconds) as checkpoints:
            while progress.epoch < self.recipe.epochs:
                self.run_epoch(checkpoints)
                loss, progress.loss, progress.batch = progress.loss / len(self.images), 0.0, 0
                progress.epoch += 1
                with self.recipe.autocast(self.device):
                    score = measure(self.averaged())
                progress.history.append({"epoch": progress.epoch, "loss": loss, "test_accuracy": score})
                write_json(self.folder / "history.json", progress.history)
                print(f"epoch {progress.epoch}: loss {loss:.3f}, test accuracy {score:.4f}", flush=True)
                checkpoints.after(progress.epoch, finished=True)

    def run_epoch(self, checkpoints: Checkpoints) -> None:
        """Train on every image once, or on the rest, in an order decided by seed and epoch alone."""
        recipe, progress = self.recipe, self.progress
        if progress.batch == 0:
            seed = recipe.seed * 10_000 + progress.epoch
            torch.manual_seed(seed)
            self.order = torch.randperm(len(self.images), generator=self.random.manual_seed(seed), device="cpu")
        batches = self.order.split(recipe.batch_size)
        self.network.train()
        title, rest = f"epoch {progress.epoch + 1}/{recipe.epochs}", batches[progress.batch :]
        for batch in (bar := tqdm(rest, title, len(batches), initial=progress.batch, unit="batch", mininterval=5)):
            loss = self.train_batch(batch, (progress.epoch + progress.batch / len(batches)) / recipe.epochs)
            progress.loss += loss * len(batch)
            progress.batch += 1
            bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
            if progress.batch < len(batches):  # the last one is saved with the accuracy
                checkpoints.after(progress.batch)

    def train_batch(self, batch: Tensor, done: float) -> float:
        """One update, at the rate that belongs to the share of the run that is done; returns the loss.

        Raises:
            FloatingPointError: it is not finite.
        """
        recipe, epoch = self.recipe, self.progress.epoch
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.learning_rate * min(done / 0.2, (1 - done) / 0.8)
        values = augment(normalise(self.images[batch]), recipe.resolution(epoch), self.random)
        with recipe.autocast(self.device):
            logits = self.network(values.contiguous(memory_format=torch.channels_last))
        loss = F.cross_entropy(logits.float(), self.labels[batch], label_smoothing=0.05)
        if not loss.isfinite():
            raise FloatingPointError(f"the loss is {loss.item()} in epoch {epoch + 1}: lower --learning-rate")
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.average.update_parameters(self.network)
        return loss.item()


def train(
    recipe: Recipe,
    data: str | Path | None,
    folder: Path,
    limit: int | None = None,
    device: str | torch.device | None = None,
) -> dict[str, Any]:
    """Run (or finish) a recipe and store the network.

    Args:
        recipe: the settings.
        data: the source of CIFAR-10, see `plugin.models.data.cifar10`; None downloads it.
        folder: gets `training.pt`, `history.json` and `NAME.safetensors`.
        limit: use only this many training and test images.
        device: where to compute; default CUDA, else MPS, else the processor.

    Returns:
        The metadata of the stored checkpoint; `accuracy` is the share of test images that the float16 weights, as
        stored, classify correctly.

    Raises:
        ValueError: `limit` is below 1, the folder holds another run, or there is no such device.
        FloatingPointError: the training diverged.
        OSError: the data are not there, or a file cannot be written.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit={limit}: at least one image is needed")
    place = choose_device(device)
    require_writable(folder / FILE_NAME)
    with seeded(recipe.seed, place):  # dropout and first weights draw from the global generators
        return _train(recipe, data, folder, limit, place)


def _train(
    recipe: Recipe, data: str | Path | None, folder: Path, limit: int | None, device: torch.device
) -> dict[str, Any]:
    images, labels = (tensor[:limit].to(device) for tensor in cifar10(data, train=True))
    test_images, test_labels = (tensor[:limit].to(device) for tensor in cifar10(data, train=False))
    earlier = _metadata_of(recipe.started_from) if recipe.started_from else {}
    trainer = ClassMapTrainer(recipe, folder, images, labels)
    trainer.resume()
    trainer.run(lambda network: accuracy(network, test_images, test_labels))
    network = trainer.averaged()
    metadata: dict[str, Any] = {
        "architecture": recipe.network,
        "data": "CIFAR-10",
        "recipe": asdict(recipe),
        "earlier": {key: value for key, value in earlier.items() if key not in ("classes", "data", "architecture")},
        "classes": CIFAR10_CLASSES,
        "seed": recipe.seed,
        "epochs": recipe.epochs,
        "history": trainer.progress.history,
        "torch": torch.__version__,
    }
    path = folder / f"{recipe.network}.safetensors"
    save_checkpoint(path, network, metadata)
    network.load_state_dict(load_weights(path))
    metadata["accuracy"] = accuracy(network, test_images, test_labels)
    save_checkpoint(path, network, metadata)
    return metadata


def _metadata_of(checkpoint: str) -> dict[str, Any]:
    """The metadata of a file that `train` has stored; a file of `torch.save` has none."""
    return read_metadata(checkpoint) if Path(checkpoint).suffix == ".safetensors" else {}


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m plugin.models.train", description=__doc__.splitlines()[0])
    parser.add_argument("network", choices=sorted(NETWORKS))
    parser.add_argument("--data", help="folder with CIFAR-10 (npz, class folders, or torchvision's); default: download")
    parser.add_argument("--out", type=Path, help="folder for the run, resumed if it exists; default: runs/NETWORK")
    parser.add_argument("--epochs", type=int, default=Recipe.epochs)
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--learning-rate", type=float, default=Recipe.learning_rate)
    parser.add_argument("--batch-size", type=int, default=Recipe.batch_size)
    parser.add_argument("--dropout", type=float, nargs=2, default=Recipe.dropout, metavar=("INPUT", "HIDDEN"))
    parser.add_argument("--smallest", type=int, default=Recipe.smallest, help="side of the first images in pixels")
    parser.add_argument("--start-from", help="a stored checkpoint of the same network to go on from")
    parser.add_argument("--precision", choices=PRECISIONS, default=Recipe.precision)
    parser.add_argument("--limit", type=int, help="use only this many images (for a trial)")
    parser.add_argument("--device", help="such as cpu or cuda:1; default: a GPU if there is one")
    options = parser.parse_args(arguments)
    folder = options.out or Path("runs") / options.network
    try:
        recipe = Recipe(
            network=options.network,
            epochs=options.epochs,
            seed=options.seed,
            batch_size=options.batch_size,
            learning_rate=options.learning_rate,
            dropout=tuple(options.dropout),
            smallest=options.smallest,
            precision=options.precision,
            started_from=options.start_from,
        )
        metadata = train(recipe, options.data, folder, options.limit, options.device)
    except KeyboardInterrupt:
        print(where_to_go_on(folder / FILE_NAME), file=sys.stderr)
        return 130
    except (OSError, FloatingPointError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{folder / options.network}.safetensors: test accuracy {metadata['accuracy']:.4f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
