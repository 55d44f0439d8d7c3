"""Training of the classifiers in `gan.classifiers`: reproducible from a seed, and resumable within an epoch."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from plugin.devices import choose_device
from plugin.files import require_writable
from plugin.models.checkpoints import read_metadata, save_checkpoint
from plugin.models.training_runs import Checkpoints, TrainingFile
from plugin.seeds import global_states, random_generator, seeded, set_global_states, uniform
from plugin.statistics import accuracy

from ..classifiers import CLASSIFIERS, Classifier
from ..data import ImageSet
from .precision import mixed_precision

_BATCH = 128


def jitter(images: Tensor, random: torch.Generator, mirror: bool = False) -> Tensor:
    """Rotate by up to 12 degrees, scale and shift by up to 10 %, each image by itself; pixels from outside are 0.

    Args:
        images: `(N, C, H, W)`.
        random: decides the transformations.
        mirror: mirror half of the images first.
    """
    if mirror:
        images = torch.where(uniform(random, len(images), 1, 1, 1) < 0.5, images.flip(3), images)
    limits = torch.tensor([[math.radians(12)], [0.1], [0.2], [0.2]], device="cpu")  # shifts in half sides
    angle, scale, right, down = (uniform(random, 4, len(images)) * 2 - 1) * limits
    cos, sin = (1 + scale) * angle.cos(), (1 + scale) * angle.sin()
    matrices = torch.stack([cos, -sin, right, sin, cos, down], dim=1).view(-1, 2, 3)
    return F.grid_sample(images, F.affine_grid(matrices, list(images.shape), False), align_corners=False)


def train_classifier(
    path: str | Path,
    train: ImageSet,
    test: ImageSet,
    kind: str = "classifier",
    epochs: int = 8,
    seed: int = 0,
    device: str | torch.device | None = None,
    mirror: bool = False,
) -> dict[str, Any]:
    """Train a classifier and store it, or resume an interrupted training.

    Args:
        path: the `.safetensors` file to write. Until it is written, a file beside it holds the unfinished training
            (`unfinished`).
        train: labelled images to learn from.
        test: labelled images to measure the accuracy on.
        kind: "classifier", "judge" or "residual-judge", a key of `CLASSIFIERS`.
        epochs: passes over `train`, each image jittered anew.
        seed: decides the first weights, the order and the jitter.
        device: of the computation; default CUDA, else MPS, else the CPU.
        mirror: also show images mirrored; right for photographs, wrong for digits.

    Returns:
        The stored metadata; `accuracy` is that of the float16 weights as stored.

    Raises:
        ValueError: the images have no labels, the two splits differ in shape or classes, a number is out of range, or
            a training of this name, finished or not, has other settings or images.
        FloatingPointError: the training diverged; the last checkpoint stays.
        OSError: a file cannot be written, as on a full disk; the last checkpoint stays.

    >>> from tempfile import mkdtemp
    >>> import torch
    >>> from gan import load_classifier, train_classifier
    >>> from gan.data import ImageSet
    >>> images, labels = torch.randint(256, (64, 1, 28, 28), dtype=torch.uint8), torch.randint(2, (64,))
    >>> pictures = ImageSet("noise", images, labels, ("left", "right"))  # yours: gan.data.read
    >>> path = f"{mkdtemp()}/classifier.safetensors"
    >>> metadata = train_classifier(path, pictures, pictures, epochs=1)
    >>> load_classifier(path).classes
    ('left', 'right')
    """
    if train.labels is None or test.labels is None:
        raise ValueError(f"{train.name} has no classes to learn: put the pictures in one folder per class")
    if (train.classes, train.image_shape) != (test.classes, test.image_shape):
        raise ValueError(
            f"the images to learn are {train.image_shape} of {len(train.classes)} classes, those to measure on "
            f"{test.image_shape} of {len(test.classes)}: give two splits of the same data"
        )
    if epochs < 1:
        raise ValueError(f"epochs={epochs}: at least one is needed")
    if kind not in CLASSIFIERS:
        raise ValueError(f"unknown classifier {kind!r}: choose one of {', '.join(CLASSIFIERS)}")
    require_writable(path)
    metadata: dict[str, Any] = {
        "architecture": kind,
        "image_shape": train.image_shape,
        "classes": train.classes,
        "data": train.name,
        "images": train.sha256(),
        "seed": seed,
        "epochs": epochs,
        "mirror": mirror,
    }
    _refuse_another(Path(path), metadata)
    place = choose_device(device)
    with seeded(seed, place):  # dropout draws from the global generators
        trainer = ClassifierTrainer(unfinished(path), train, kind, epochs, seed, place, mirror)
        trainer.resume()
        trainer.run()
    classifier = trainer.classifier
    metadata["torch"] = torch.__version__
    state = {
        name: value.half().float() if value.is_floating_point() else value
        for name, value in classifier.state_dict().items()
    }
    classifier.load_state_dict(state)
    batches = zip(test.values().split(1000), test.labels.split(1000), strict=True)
    metadata["accuracy"] = accuracy(classifier, ((images.to(place), labels.to(place)) for images, labels in batches))
    save_checkpoint(path, classifier, metadata)
    trainer.file.path.unlink(missing_ok=True)
    return metadata


def _refuse_another(path: Path, metadata: Mapping[str, Any]) -> None:
    """Refuse to replace the classifier of another training.

    Raises:
        ValueError: the file holds such a classifier, or something else.
    """
    if not path.exists():
        return
    try:
        stored = read_metadata(path)
    except Exception as error:  # the parser may raise anything for another kind of file
        raise ValueError(f"{path} exists and is no classifier ({type(error).__name__}): give another folder") from error
    now = json.loads(json.dumps(metadata))
    images = now.pop("images")
    # Settings that an older version did not store are taken as equal.
    other = [name for name, value in now.items() if name in {"architecture", *stored} and stored.get(name) != value]
    if other:
        told = ", ".join(f"{name}={stored.get(name)!r} instead of {now[name]!r}" for name in other)
        raise ValueError(f"{path} is of another training, with {told}: give its settings, or another folder")
    if stored.get("images", images) != images:
        raise ValueError(f"{path} is of a training with other images: give these, or another folder")


def unfinished(path: str | Path) -> Path:
    """The file that holds the unfinished training of a classifier until `path` is written."""
    return Path(path).with_suffix(".training.pt")


class ClassifierTrainer:
    """One training of a classifier; its file holds its whole state, so that a resumed one ends bit for bit the same.

    Args:
        file: of the unfinished training.
        data: labelled images.
        kind, epochs, seed, mirror: see `train_classifier`.
        device: of the computation. A training may be resumed on another one.
    """

    def __init__(
        self, file: Path, data: ImageSet, kind: str, epochs: int, seed: int, device: torch.device, mirror: bool
    ) -> None:
        self.data, self.kind, self.device, self.mirror = data, kind, device, mirror
        settings = {"network": kind, "epochs": epochs, "seed": seed, "mirror": mirror}
        self.file = TrainingFile(file, {**settings, "data": data.name, "images": len(data)}, data.sha256())
        with torch.device("cpu"):  # the initial weights are the same on every device
            classifier = CLASSIFIERS[kind](data.image_shape, data.classes)
        self.classifier: Classifier = classifier.to(device).to(memory_format=torch.channels_last)
        self.random = random_generator(seed)
        self.steps_per_epoch = math.ceil(len(data) / _BATCH)
        self.steps, self.step = epochs * self.steps_per_epoch, 0
        self.order = torch.empty(0, dtype=torch.int64, device="cpu")
        self.optimizer = torch.optim.AdamW(
            self.classifier.parameters(), lr=2e-3, weight_decay=1e-2, fused=device.type != "mps"
        )
        # PyTorch divides by the number of rising steps less one, which is 0 for 5 steps.
        rise = 0.2 if self.steps != 5 else 0.4
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, 2e-3, total_steps=self.steps, pct_start=rise
        )

    def resume(self) -> None:
        """Continue the training in the file, if there is one.

        Raises:
            ValueError: it has other settings or images, or its file is damaged.
        """
        state = self.file.read()
        if state is None:
            return
        self.classifier.load_state_dict(state["classifier"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.random.set_state(state["random"])
        set_global_states(state["dropout"], self.device)
        self.order, self.step = state["order"], state["step"]

    def save(self) -> None:
        """Write everything that `resume` reads, atomically."""
        self.file.write(
            {
                "classifier": self.classifier.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "schedule": self.schedule.state_dict(),
                "random": self.random.get_state(),
                "dropout": global_states(self.device),
                "order": self.order,
                "step": self.step,
            }
        )

    def run(self, save_seconds: float = 120) -> None:
        """Train to the end, with a progress bar, and a checkpoint now and then.

        Args:
            save_seconds: the time between two checkpoints.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed; the current step is finished and saved first.
        """
        self.classifier.train()
        bar = tqdm(range(self.step, self.steps), self.kind, self.steps, initial=self.step, unit="batch", mininterval=2)
        with Checkpoints(self.save, save_seconds) as checkpoints:
            for _ in bar:
                loss = self.train_step()
                bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
                checkpoints.after(self.step, finished=self.step == self.steps)

    def train_step(self) -> float:
        """One update; returns the loss.

        Raises:
            FloatingPointError: the loss is not finite; the weights and the file stay unchanged.
        """
        assert self.data.labels is not None
        place = self.step % self.steps_per_epoch
        if place == 0:
            self.order = torch.randperm(len(self.data), generator=self.random, device="cpu")
        batch = self.order[place * _BATCH : (place + 1) * _BATCH]
        images = jitter(self.data.images[batch].float() / 255, self.random, self.mirror)
        images = images.contiguous(memory_format=torch.channels_last)
        with mixed_precision(device=self.device):
            logits = self.classifier(images.to(self.device))
        loss = F.cross_entropy(logits.float(), self.data.labels[batch].to(self.device))
        if not loss.isfinite():
            raise FloatingPointError(
                f"the loss is {loss.item()} in step {self.step + 1} of {self.steps}: look for images without content "
                "or wrong labels; earlier checkpoints stay"
            )
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        self.step += 1
        return loss.item()
