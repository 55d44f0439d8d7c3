"""From pictures to inputs: as torchvision prepares them."""

import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms._presets import ImageClassification

from plugin import models

MODES = {Image.Resampling.BILINEAR: InterpolationMode.BILINEAR, Image.Resampling.BICUBIC: InterpolationMode.BICUBIC}


@pytest.mark.parametrize("name", ["resnet18", "vit_b_16", "inception_v3", "efficientnet_b1"])
@pytest.mark.parametrize(
    "size", [(274, 323), (459, 623), (685, 499), (373, 786), (224, 227), (31, 48), (1000, 667), (256, 259), (7, 7)]
)
def test_pictures_of_any_size_become_what_torchvision_makes_of_them(name, size):
    steps = models.preprocessing_of(name)
    torchvisions = ImageClassification(
        crop_size=steps.crop, resize_size=steps.resize, mean=steps.mean, std=steps.std,
        interpolation=MODES[steps.interpolation],
    )  # fmt: skip
    noise = torch.randint(0, 256, (size[1], size[0], 3), generator=torch.Generator().manual_seed(0))
    picture = Image.fromarray(noise.byte().numpy())
    torch.testing.assert_close(steps(picture)[0], torchvisions(picture), atol=0, rtol=0)
