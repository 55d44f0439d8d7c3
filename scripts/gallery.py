"""The pictures of the method pages, drawn anew: `python scripts/gallery.py`.

Each shows three of the photographs that ship with the package, and beside each its map for the class that the network
gives. The first row is All-CNN-C. The second is SqueezeNet, whose weights are read from the folder `REAL_DATA`; without
that folder the row is left out. The picture of the presets for transformers is the first figure of a tutorial.
"""

import os
import re
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from plugin import figures, models
from plugin.attr import (
    DeconvNet,
    Deconvolution,
    GuidedBackprop,
    GuidedGradCam,
    LayerLRPTranspose,
    LRPTranspose,
    ModifiedBackprop,
    NeuronGuidedBackprop,
)
from plugin.rules import Composite, Gamma, WSquare, ZBox, ZPlus, presets

FOLDER = ROOT / "docs" / "figures" / "methods"
PHOTOGRAPHS = ("cat", "coffee", "china")
SIDE, GAP, COLOURS = 128, 4, 64
SQUEEZENET = Path("imagenet") / "squeezenet1_0_imagenet.safetensors"
# The layer of Guided Grad-CAM, of the relevance at a layer, and of the neuron in the middle of its map.
LAYERS = {"all-cnn-c": "features.relu8", "squeezenet1_0": "features.12"}
# For the deconvnet without an image: layers of All-CNN-C, and the middle of their maps.
UNITS = {"features.conv2": (16, 16), "features.conv3": (8, 8), "features.conv4": (8, 8), "features.conv6": (4, 4)}

Picture = NDArray[np.uint8]
Explain = Callable[[models.LoadedModel, Tensor, int], Tensor]


def networks() -> list[models.LoadedModel]:
    """The networks of the rows: those whose weights are on this machine."""
    weights = Path(os.environ.get("REAL_DATA", ROOT.parent / "shared" / "data")) / SQUEEZENET
    rows = [models.load("all-cnn-c")]
    return [*rows, models.load("squeezenet1_0", checkpoint=weights)] if weights.is_file() else rows


def signed(attribution: Tensor) -> Picture:
    """Red and blue, summed over the channels. A large map is averaged to the cell's size: colours would mix to grey."""
    values = attribution.sum(0, keepdim=True)
    values = adaptive_avg_pool2d(values, SIDE) if values.shape[-1] > SIDE else values
    array = values[0].numpy()
    return figures.signed_colours(array, figures.symmetric_limit([array]))


def coloured(attribution: Tensor) -> Picture:
    """The three channels as colours on grey."""
    return figures.as_image(attribution.numpy())


def of_rule(rules: str | Composite) -> Explain:
    """LRP under a preset or a composite."""
    return lambda model, inputs, target: LRPTranspose(model.network, rules).attribute(inputs, target=target)


def of_row(rule: str) -> Explain:
    """A row of `plugin.rules.SIGNAL_RULES`."""
    return lambda model, inputs, target: ModifiedBackprop(model.network, rule).attribute(inputs, target=target)


def input_x_gradient(model: models.LoadedModel, inputs: Tensor, target: int) -> Tensor:
    """The gradient times the input."""
    return inputs * of_row("gradient")(model, inputs, target)


def deconvnet(unpooling: str) -> Explain:
    """The deconvnet with one way of unpooling."""
    return lambda model, inputs, target: Deconvolution(model.network, unpooling).attribute(inputs, target=target)


def guided_backprop(model: models.LoadedModel, inputs: Tensor, target: int) -> Tensor:
    """Guided backprop of the class."""
    return GuidedBackprop(model.network).attribute(inputs, target=target)


def guided_grad_cam(model: models.LoadedModel, inputs: Tensor, target: int) -> Tensor:
    """Guided Grad-CAM of the class."""
    return GuidedGradCam(model.network, LAYERS[model.name]).attribute(
        inputs, target=target, interpolate_mode="bilinear"
    )


def at_layer(model: models.LoadedModel, inputs: Tensor, target: int) -> Tensor:
    """The relevance of the class at a layer `(1, K, h, w)`."""
    return LayerLRPTranspose(model.network, LAYERS[model.name], rules="epsilon_plus").attribute(inputs, target=target)


def of_neuron(model: models.LoadedModel, inputs: Tensor, _: int) -> Tensor:
    """Guided backprop of the channel that responds most in the middle of a layer's map."""
    found: list[Tensor] = []
    layer = model.network.get_submodule(LAYERS[model.name])
    handle = layer.register_forward_hook(lambda _, __, output: found.append(output.detach()[0]))
    model.network(inputs)
    handle.remove()
    row, column = (side // 2 for side in found[0].shape[1:])
    channel = int(found[0][:, row, column].argmax())
    return NeuronGuidedBackprop(model.network, layer).attribute(inputs, (channel, row, column))


def box(model: models.LoadedModel, inputs: Tensor, target: int) -> Tensor:
    """The preset with the bounds of the network's own inputs."""
    composite = presets.epsilon_gamma_box(*model.preprocessing.input_range)
    return of_rule(composite)(model, inputs, target)


def box_first(model: models.LoadedModel, inputs: Tensor, target: int) -> Tensor:
    """z^B for the first layer, z+ above it."""
    composite = Composite(first=ZBox(*model.preprocessing.input_range), default=ZPlus())
    return of_rule(composite)(model, inputs, target)


Draw = Callable[[Tensor], Picture]
GALLERY: dict[str, tuple[Explain, Draw]] = {
    "gradient": (of_row("gradient"), signed),
    "input-x-gradient": (input_x_gradient, signed),
    "deconvnet": (deconvnet("switches"), coloured),
    "deconvnet-without-switches": (deconvnet("center"), coloured),
    "guided-backprop": (guided_backprop, coloured),
    "guided-grad-cam": (guided_grad_cam, coloured),
    "linear-adjoint": (of_row("linear adjoint"), coloured),
    "layer": (at_layer, signed),
    "neuron": (of_neuron, coloured),
    "rule-gamma": (of_rule(Composite(default=Gamma(0.25))), signed),
    "rule-w-square": (of_rule(Composite(first=WSquare(), default=ZPlus())), signed),
    "rule-box": (box_first, signed),
    "preset-epsilon": (of_rule("epsilon"), signed),
    "preset-epsilon-plus": (of_rule("epsilon_plus"), signed),
    "preset-epsilon-plus-flat": (of_rule("epsilon_plus_flat"), signed),
    "preset-epsilon-gamma-box": (box, signed),
    "preset-epsilon-alpha2-beta1": (of_rule("epsilon_alpha2_beta1"), signed),
    "preset-epsilon-alpha2-beta1-flat": (of_rule("epsilon_alpha2_beta1_flat"), signed),
    "preset-excitation-backprop": (of_rule("excitation_backprop"), signed),
}


def row(model: models.LoadedModel, explain: Explain, draw: Draw) -> list[Image.Image]:
    """Each photograph as the network sees it, and its map."""
    cells = []
    for name in PHOTOGRAPHS:
        photograph = models.sample_images()[name]
        inputs = model.preprocess(photograph)
        target = int(model.network(inputs).argmax())
        cells += [model.visible(photograph), Image.fromarray(draw(explain(model, inputs, target)[0]))]
    return cells


def of_units(network: nn.Module, layer: str, position: tuple[int, int], count: int) -> list[Image.Image]:
    """The first units of a layer, without an image; each is cut to the pixels that the unit sees."""
    pictures = DeconvNet(network, layer, (3, 32, 32)).reconstruct(range(count), position=position)
    seen = pictures.abs().sum((0, 1)).nonzero()
    (top, left), (bottom, right) = seen.min(0).values.tolist(), seen.max(0).values.tolist()
    cut = pictures[:, :, top : bottom + 1, left : right + 1].numpy()
    return [Image.fromarray(figures.as_image(each, clip_percentile=100)) for each in cut]


def sheet(rows: list[list[Image.Image]]) -> bytes:
    """Cells of one size on white, as a PNG with few colours."""
    width, height = max(map(len, rows)), len(rows)
    step = SIDE + GAP
    canvas = Image.new("RGB", (width * step - GAP, height * step - GAP), "white")
    for y, cells in enumerate(rows):
        for x, cell in enumerate(cells):
            how = Image.Resampling.NEAREST if cell.width < SIDE else Image.Resampling.LANCZOS
            canvas.paste(cell.resize((SIDE, SIDE), how), (x * step, y * step))
    palette = Image.new("P", (1, 1))
    own = canvas.quantize(COLOURS).getpalette() or []
    scale = figures.signed_colours(np.linspace(-1, 1, COLOURS // 2)[None], 1.0)  # so that red and blue stay pure
    palette.putpalette([*own, *scale.flatten().tolist()])
    file = BytesIO()
    canvas.quantize(palette=palette, dither=Image.Dither.NONE).save(file, format="PNG", optimize=True)
    return file.getvalue()


def first_map(model: models.LoadedModel) -> bytes:
    """The picture that the first example draws: the cat under its relevance."""
    photograph = models.sample_images()["cat"]
    picture = signed(of_rule("epsilon_plus_flat")(model, model.preprocess(photograph), 3)[0])
    return figures.to_png(picture, model.visible(photograph), opacity=0.5, side=256)


def first_figure(tutorial: str) -> bytes:
    """The first figure that the blocks of a tutorial draw."""
    text = (ROOT / "docs" / "tutorials" / f"{tutorial}.md").read_text(encoding="utf-8")
    namespace: dict[str, Any] = {"__name__": tutorial}
    file = BytesIO()
    with patch.object(plt, "show", lambda: plt.savefig(file, format="png", dpi=100)):
        for block in re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S):
            exec(block, namespace)
            if file.tell():
                break
    return file.getvalue()


def main() -> None:
    """Write all of them."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    rows = networks()
    for name, (explain, draw) in GALLERY.items():
        (FOLDER / f"{name}.png").write_bytes(sheet([row(model, explain, draw) for model in rows]))
        print(FOLDER / f"{name}.png")
    units = [of_units(rows[0].network, layer, position, 6) for layer, position in UNITS.items()]
    (FOLDER / "deconvnet-without-image.png").write_bytes(sheet(units))
    plt.switch_backend("agg")
    (FOLDER / "preset-attn-lrp-cp-lrp.png").write_bytes(first_figure("tokens"))
    (FOLDER.parent / "first-map.png").write_bytes(first_map(rows[0]))


if __name__ == "__main__":
    main()
