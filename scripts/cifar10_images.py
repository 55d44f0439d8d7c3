"""Classes of CIFAR-10 in code space, drawn and judged anew for docs: `python scripts/cifar10_images.py`.

Sixteen runs for each class of All-CNN-C and of model C, in the codes of `dcgan-cifar10`. The judge took no part, and is
asked about real test images, about pixel-space ascent, and about random images of the generator too. CIFAR-10 is read
from the folder `REAL_DATA`.
"""

import os
import sys
from pathlib import Path

import torch
from torchvision.transforms import Normalize

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from gan import CodeSpaceAM, load, load_classifier, scorecard
from gan.data import read
from gan.export import save_grid
from gan.networks import Generator
from plugin import models

DATA = Path(os.environ.get("REAL_DATA", ROOT.parent / "shared" / "data")) / "cifar10"
RUNS = 16


def main() -> None:
    """A sheet per network in docs/figures, and the judge's scorecard of it on the screen."""
    generator, judge = load("dcgan-cifar10").generator, load_classifier("cifar10-judge")
    test = read("cifar10", train=False, folder=DATA)
    random_images(generator, judge)
    for name in models.names():
        model = models.load(name)
        normalise = Normalize(model.preprocessing.mean, model.preprocessing.std)
        maximizer = CodeSpaceAM(model.network, generator, transform=normalise)
        targets = [target for target in range(10) for _ in range(RUNS)]
        result = maximizer.maximize(targets, seeds=[*range(RUNS)] * 10)
        save_grid(result.images, ROOT / "docs" / "figures" / f"code-space-{name}.png", columns=RUNS)
        print(name, scorecard(result, judge, test), sep="\n", flush=True)
        of_classes(result.images, judge, test.classes)


@torch.no_grad()
def random_images(generator: Generator, judge: torch.nn.Module, count: int = 2000) -> None:
    """The share of random codes whose class the judge sees."""
    codes = torch.randn(count, generator.code_size, generator=torch.Generator().manual_seed(0))
    outputs = torch.cat([judge(generator(some)) for some in codes.split(100)])
    labels = generator.labels(codes)
    assert labels is not None
    agreed = (outputs.argmax(1) == labels).float().mean()
    print(f"random codes: the judge agrees on {agreed:.0%} of {count}")


@torch.no_grad()
def of_classes(images: torch.Tensor, judge: torch.nn.Module, classes: tuple[str, ...]) -> None:
    """The judge's agreement class by class."""
    first = judge(images).argmax(1).view(10, -1)
    shares = (first == torch.arange(10).unsqueeze(1)).float().mean(1)
    print(", ".join(f"{name} {share:.0%}" for name, share in zip(classes, shares.tolist(), strict=True)))


if __name__ == "__main__":
    main()
