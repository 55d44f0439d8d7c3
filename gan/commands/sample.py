"""Draw images of random codes z ~ N(0, I) as a PNG grid."""

import argparse
import math
from pathlib import Path

from plugin.files import replacing, require_writable

from ..export import picture_format
from ..judging.generator_quality import sample
from ..loading import load


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--gan", default="dcgan-mnist", help="a shipped name or a checkpoint; default: dcgan-mnist")
    parser.add_argument("--count", type=int, default=64, help="how many images; default: 64")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("samples.png"), help="default: samples.png")


def run(options: argparse.Namespace) -> int:
    """Write the grid."""
    from torchvision.utils import save_image

    if options.count < 1:
        raise ValueError(f"--count must be at least 1, not {options.count}")
    name, _ = picture_format(options.out)
    require_writable(options.out)
    generator = load(options.gan).generator
    images = sample(generator, options.count, options.seed)
    with replacing(options.out) as partial:
        save_image(images, str(partial), nrow=math.ceil(math.sqrt(options.count)), format=name)
    print(options.out)
    return 0
