"""The images of docs/methods/fourier-maximisation.md, drawn and measured anew: `python scripts/natural_images.py`.

Ten ImageNet classes of SqueezeNet 1.0 in each space, one run each, in equally many steps. Weights and photographs are
read from the folder `REAL_DATA`. The photographs there are measured, too, for comparison.
"""

import json
import os
import sys
import time
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import Normalize
from torchvision.transforms.functional import gaussian_blur, to_tensor

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from gan import ImageSpaceAM
from gan.export import save_grid
from gan.judging.measures import nearest, neighbour_distances
from gan.maximising.activations import Activations
from gan.maximising.spaces import SPACES
from plugin import models

DATA = Path(os.environ.get("REAL_DATA", ROOT.parent / "shared" / "data")) / "imagenet"
CLASSES = {
    "golden retriever": 207, "castle": 483, "flamingo": 130, "pizza": 963, "daisy": 985,
    "zebra": 340, "volcano": 980, "sports car": 817, "banana": 954, "strawberry": 949,
}  # fmt: skip
STEPS, SHOWN = 128, 112


def main() -> None:
    """One sheet per space in docs/figures, and a line per space on the screen."""
    model = models.load("squeezenet1_0", checkpoint=DATA / "squeezenet1_0_imagenet.safetensors")
    seen = model.preprocessing
    normalise, shape = Normalize(seen.mean, seen.std), (3, seen.crop, seen.crop)
    photographs, labels = photographs_of(model)
    judge = Activations(model.network, None, normalise, photographs[:1])
    wanted = torch.tensor([*CLASSES.values()])
    with torch.no_grad():
        logits = torch.cat([judge(some) for some in photographs.split(20)])
    print(row("photographs", judge, photographs, labels, photographs), f"largest logit {logits.amax():.0f}")
    for space in SPACES:
        maximizer = ImageSpaceAM(model.network, shape, transform=normalise, space=space)
        began = time.process_time()
        result = maximizer.maximize(wanted, seeds=range(len(wanted)), steps=STEPS)
        seconds = (time.process_time() - began) / len(wanted)
        small = F.interpolate(result.images, (SHOWN, SHOWN), mode="bilinear", antialias=True)
        save_grid(small, ROOT / "docs" / "figures" / f"natural-{space}.jpg", columns=5)
        line = row(space, judge, result.images, wanted, photographs)
        print(line, f"logit {result.scores[-1].median():.0f}, {seconds:.0f} s of one run", flush=True)


def photographs_of(model: models.LoadedModel) -> tuple[Tensor, Tensor]:
    """The photographs `(n, 3, H, W)` in [0, 1] as the network sees them, and their classes `(n,)`."""
    rows = json.loads((DATA / "labels.json").read_text())
    pictures = []
    for name in rows:
        with Image.open(DATA / "images" / name) as file:
            pictures.append(to_tensor(model.visible(file.convert("RGB"))))
    return torch.stack(pictures), torch.tensor([row["index"] for row in rows.values()])


def elsewhere(images: Tensor) -> Tensor:
    """Views that no run climbed: mirrored, blurred, and scaled to 90 %."""
    blurred = gaussian_blur(images.flip(3), [7, 7], [1.0, 1.0])
    side = round(0.9 * images.shape[3])
    return F.interpolate(blurred, (side, side), mode="bilinear", antialias=True)


def row(name: str, judge: Activations, images: Tensor, classes: Tensor, photographs: Tensor) -> str:
    """How the network takes images in views that were not climbed."""
    features, outputs = described(judge, elsewhere(images))
    of_class = outputs.gather(1, classes.unsqueeze(1))
    ranks = (outputs > of_class).sum(dim=1)
    chances = outputs.softmax(dim=1).gather(1, classes.unsqueeze(1))
    real, _ = described(judge, elsewhere(photographs))
    apart = neighbour_distances(real)
    distances = apart if images is photographs else nearest(features, real)[0]
    return (
        f"{name}: first {int((ranks == 0).sum())} of {len(images)}, among five {int((ranks < 5).sum())}, "
        f"probability {chances.mean():.2f}, distance {distances.mean() / apart.mean():.2f},"
    )


def described(judge: Activations, images: Tensor) -> tuple[Tensor, Tensor]:
    """The last layer's input in the mean over positions `(n, k)`, and the logits `(n, classes)`."""
    features, outputs = [], []
    with torch.no_grad():
        for some in images.split(20):
            logits, received = judge.with_features(some)
            features.append(received.view(len(some), 512, -1).mean(dim=2))
            outputs.append(logits)
    return torch.cat(features), torch.cat(outputs)


if __name__ == "__main__":
    main()
