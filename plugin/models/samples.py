"""Photographs that our dependencies ship: scikit-image's and scikit-learn's own sample data. Nothing is downloaded."""

from functools import cache

from PIL import Image


@cache
def sample_images() -> dict[str, Image.Image]:
    """Six RGB photographs by name: cat, astronaut, coffee, rocket, china, flower.

    Raises:
        ModuleNotFoundError: scikit-image or scikit-learn is missing; both come with the extra `app`.
    """
    from skimage import data
    from sklearn.datasets import load_sample_image

    pictures = {
        "cat": data.cat(),
        "astronaut": data.astronaut(),
        "coffee": data.coffee(),
        "rocket": data.rocket(),
        "china": load_sample_image("china.jpg"),
        "flower": load_sample_image("flower.jpg"),
    }
    return {name: Image.fromarray(pixels) for name, pixels in pictures.items()}
