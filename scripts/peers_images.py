"""The same ten classes by lucent and Horama: `python scripts/peers_images.py --packages FOLDER`.

Images are written where scripts/natural_images.py looks for them. Network, size, steps and classes are the same; how
images are written, seen and optimised is left to the defaults of each library. The folder has the packages, of which no
other part of the project knows:

    pip install --target FOLDER --no-deps torch-lucent==0.1.8 "kornia==0.4.1" decorator horama==0.3.0 einops

Horama's crops are by default a fifth to a third of pictures of 1,280 pixels. Pictures of 224 pixels have no room for
such crops; they are seven to eight tenths of the side here. MACO's magnitudes, which Horama downloads, are measured on
the photographs in the folder `REAL_DATA`.
"""

import argparse
import os
import sys
import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from natural_images import ROOT, SIDE, STEPS, InBfloat16, draw, photographs_of, squeezenet
from torch import Tensor, nn

from gan.maximising.spaces import mean_magnitude

MEAN, DEVIATION = (torch.tensor(row).view(3, 1, 1) for row in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
# Horama adds the second one's distance from the first to it: crops of 0.7 to 0.8 of the side.
BOXES = (0.6, 0.7)


def main() -> None:
    """Draw the missing images."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--packages", type=Path, required=True, help="folder of the libraries")
    parser.add_argument("--images", type=Path, default=ROOT / "build" / "natural", help="folder of the images")
    parser.add_argument("--makers", nargs="*", default=["lucent", "horama-fourier", "horama-maco"])
    parser.add_argument("--runs", type=int, default=1, help="runs for each class")
    parser.add_argument("--bfloat16", action="store_true", help="maximise the network in bfloat16")
    options = parser.parse_args()
    sys.path.append(str(options.packages.resolve()))
    images = options.images.resolve()
    model = squeezenet()
    network = InBfloat16(model.network) if options.bfloat16 else model.network
    network.requires_grad_(False)
    makers: dict[str, Callable[[int, int], Tensor]] = {
        "lucent": partial(by_lucent, network),
        "horama-fourier": partial(by_horama, network, "fourier"),
        "horama-maco": partial(by_horama, network, "maco"),
    }
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # Horama reads the magnitudes from the working folder
        if "horama-maco" in options.makers:
            magnitude = mean_magnitude(photographs_of(model)[0], (3, SIDE, SIDE))
            np.save("spectrum_decorrelated.npy", magnitude.numpy())
        for maker in options.makers:
            draw(images / maker, options.runs, makers[maker])
        os.chdir(ROOT)


def by_lucent(network: nn.Module, label: int, seed: int) -> Tensor:
    """An image `(3, H, W)` in [0, 1]: Fourier space, uncorrelated colours, and lucent's standard transforms."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its kornia is of 2020
        from lucent.optvis import param, render

        torch.manual_seed(seed)
        np.random.seed(seed)  # lucent draws from it

        def objective(hook: Callable[[str], Tensor]) -> Tensor:
            return -hook("labels").flatten(1)[:, label].mean()

        frames = render.render_vis(
            network, objective, lambda: param.image(SIDE, fft=True, decorrelate=True), thresholds=(STEPS,),
            progress=False, show_image=False,
        )  # fmt: skip
    for module in network.modules():
        module._forward_hooks.clear()  # lucent leaves them
    return torch.from_numpy(frames[-1][0]).permute(2, 0, 1)


def by_horama(network: nn.Module, space: str, label: int, seed: int) -> Tensor:
    """An image `(3, H, W)` in [0, 1]; Horama draws normalised ones."""
    import horama

    torch.manual_seed(seed)

    def objective(images: Tensor) -> Tensor:
        values: Tensor = network(images)[:, label].mean()
        return values

    maximise: Callable[..., Any] = {"fourier": horama.fourier, "maco": horama.maco}[space]
    image, _ = maximise(objective, total_steps=STEPS, image_size=SIDE, box_size=BOXES, device="cpu")
    seen: Tensor = image.detach() * DEVIATION + MEAN
    return seen.clamp(0, 1)


if __name__ == "__main__":
    main()
