"""The survey of a layer's units against a literal search over all pictures and positions."""

import math

import pytest
import torch
from torch import nn

from plugin.errors import LayerError
from plugin.experiments.unit_survey import PictureBatch, receptive_fields, survey_units

CLASSES = 3


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(5, 6, 3), nn.ReLU(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(6 * 4, 4),
    ).eval()  # fmt: skip


@pytest.fixture(scope="module")
def images():
    return torch.randn(13, 3, 12, 12, generator=torch.Generator().manual_seed(1))


def labels_of(count):
    return [number % (CLASSES + 1) - 1 for number in range(count)]  # -1 is not known


def batches(images, size, numbers=None):
    numbers, labels = list(numbers or range(len(images))), labels_of(len(images))
    for start in range(0, len(images), size):
        part = slice(start, start + size)
        yield PictureBatch(images[part], numbers[part], labels[part])


def searched(outputs, count):
    """For each unit (value, picture, position) of the strongest pictures, one value after the other."""
    found = []
    for unit in range(outputs.shape[1]):
        strongest = []
        for picture in range(len(outputs)):
            values = outputs[picture, unit]
            best = -math.inf, ()
            for place in torch.cartesian_prod(*map(torch.arange, values.shape)).tolist() if values.ndim else [()]:
                if float(values[tuple(place)]) > best[0]:
                    best = float(values[tuple(place)]), tuple(place)
            strongest.append((best[0], picture, best[1]))
        found.append(sorted(strongest, key=lambda entry: (-entry[0], entry[1]))[:count])
    return found


@pytest.mark.parametrize("layer", ["0", "4", "7"])
@pytest.mark.parametrize("size", [7, 50])
def test_survey_finds_what_a_literal_search_finds_whatever_the_batches(network, images, layer, size):
    end = int(layer) + 1
    with torch.no_grad():
        outputs = network[:end](images)
    found = survey_units(network, layer, batches(images, size), count=4)
    for unit, expected in enumerate(searched(outputs, 4)):
        assert found.values[unit].tolist() == pytest.approx([value for value, _, _ in expected])
        assert found.pictures[unit].tolist() == [picture for _, picture, _ in expected]
        # of a zero after a ReLU the place means nothing
        for place, (value, _, position) in zip(found.positions[unit].tolist(), expected, strict=True):
            assert tuple(place) == position or value == 0
    assert found.seen == len(images)


def test_units_may_be_in_another_dimension_and_pictures_fewer_than_asked_for(images):
    class ChannelsLast(nn.Module):
        def forward(self, value):
            return value.permute(0, 2, 3, 1) * 1

    network = nn.Sequential(ChannelsLast())
    found = survey_units(network, "0", batches(images[:3], 2, [10, 20, 30]), count=9, channel=3)
    for unit, expected in enumerate(searched(images[:3], 9)):
        assert found.pictures[unit].tolist() == [(picture + 1) * 10 for _, picture, _ in expected]
        assert [tuple(place) for place in found.positions[unit].tolist()] == [place for _, _, place in expected]


def test_what_is_no_number_excites_nothing(images):
    broken = images[:4].clone()
    broken[1, 0, 2, 2] = torch.nan
    found = survey_units(nn.Sequential(nn.Identity()), "0", batches(broken, 4), count=4)
    assert found.pictures[0, -1] == 1
    assert found.values[0].isfinite().tolist() == [True, True, True, False]


def test_selectivity_is_that_of_the_formula(network, images):
    found = survey_units(network, "3", batches(images, 5), classes=CLASSES + 1)
    with torch.no_grad():
        strongest = network[:4](images).amax((2, 3)).clamp(min=0)
    labels = torch.tensor(labels_of(len(images)))
    for unit in range(6):
        means = [float(strongest[labels == number, unit].mean()) for number in range(CLASSES)]
        for number in range(CLASSES):
            rest = sum(means[:number] + means[number + 1 :]) / (CLASSES - 1)
            expected = (means[number] - rest) / (means[number] + rest)
            assert float(found.selectivity[number, unit]) == pytest.approx(expected, rel=1e-4)
    assert found.selectivity[CLASSES].isnan().all()  # a class without a picture
    assert survey_units(network, "3", batches(images[:2], 2), classes=CLASSES).selectivity.isnan().all()


def test_selectivity_of_a_silent_unit_is_zero():
    images = torch.cat([torch.ones(4, 1, 2, 2), -torch.ones(4, 1, 2, 2)], 1)
    labelled = [PictureBatch(images, range(4), [0, 1, 0, 1])]
    found = survey_units(nn.Sequential(nn.Identity()), "0", labelled, classes=2)
    assert found.selectivity.tolist() == [[0, 0], [0, 0]]


def test_progress_sees_each_batch_and_can_end_the_survey(network, images):
    seen = []

    def progress(survey):
        seen.append(survey.seen)
        if len(seen) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        survey_units(network, "0", batches(images, 5), progress=progress)
    assert seen == [5, 10]


def test_survey_says_what_is_missing(network):
    with pytest.raises(ValueError, match="no pictures"):
        survey_units(network, "0", [])
    with pytest.raises(LayerError, match="no layer 'x'"):
        survey_units(network, "x", [PictureBatch(torch.zeros(1, 3, 12, 12), [0])])


@pytest.mark.parametrize("layer", ["0", "2", "3", "5", "7"])
def test_receptive_field_holds_the_pixels_that_can_change_a_unit_and_no_others(network, layer):
    until = network[: int(layer) + 1]
    pictures = torch.randn(8, 3, 12, 12, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        before = until(pictures)
        others = torch.cat([with_other_pixel(pictures, pixel) for pixel in range(12 * 12)])
        changed = until(others).unflatten(0, (12 * 12, len(pictures))) != before
    shape = before.shape[2:]
    positions = [tuple(side // n for side in shape) for n in (2, 3, 20)] if len(shape) else [()]
    fields = receptive_fields(network, layer, (3, 12, 12), positions, batch_size=2)
    for position, field in zip(positions, fields, strict=True):
        expected = torch.zeros(12, 12, dtype=torch.bool)
        expected[field] = True
        assert torch.equal(changed[(..., *position)].flatten(1).any(1).view(12, 12), expected)


def with_other_pixel(pictures, pixel):
    changed = pictures.clone()
    changed[:, :, pixel // 12, pixel % 12] += 5
    return changed
