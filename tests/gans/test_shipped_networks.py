"""The shipped GANs and classifiers: ten digits from sixteen seeds each, which all tests here look at."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.helpers import slow

from gan import CodeSpaceAM, load, load_classifier, scorecard
from gan.data import read
from gan.judging.scorecards import OWN
from gan.maximising import Result

TARGETS, SEEDS = [digit for digit in range(10) for _ in range(16)], [*range(16)] * 10
# By the name of the generator, the lower bounds of the scorecard: agreement and diversity.
LEAST = {"gan-mnist": (0.95, 0.6), "dcgan-mnist": (0.97, 0.7)}


@pytest.fixture(scope="module", params=[slow("gan-mnist"), "dcgan-mnist"])
def name(request: pytest.FixtureRequest) -> str:
    """The tests of a generator follow one another, so that its runs are made once."""
    generator: str = request.param
    return generator


@pytest.fixture(scope="module")
def am(name: str) -> CodeSpaceAM:
    return CodeSpaceAM(load_classifier("mnist-classifier"), load(name).generator)


@pytest.fixture(scope="module")
def batch(am: CodeSpaceAM) -> Result:
    """160 runs at once."""
    return am.maximize(TARGETS, seeds=SEEDS)


def test_a_batch_of_160_gives_the_single_runs(am: CodeSpaceAM, batch: Result) -> None:
    """Kernels round differently in batches of other sizes, and one comparison that falls out otherwise is a new run."""
    for run in range(3, 160, 17):  # every digit, and another seed for each
        single = am.maximize([TARGETS[run]], seeds=[SEEDS[run]])
        torch.testing.assert_close(single.images[0], batch.images[run], atol=1e-4, rtol=0)
        torch.testing.assert_close(single.codes[0], batch.codes[run], atol=1e-4, rtol=0)
        torch.testing.assert_close(single.scores[:, 0], batch.scores[:, run], atol=1e-4, rtol=0)
    few = am.maximize(TARGETS[5:9] + TARGETS[70:90], seeds=SEEDS[5:9] + SEEDS[70:90])
    torch.testing.assert_close(few.codes, torch.cat([batch.codes[5:9], batch.codes[70:90]]), atol=1e-4, rtol=0)


def test_another_network_reads_the_digits(name: str, batch: Result, real_data: Path) -> None:
    agreement, diversity = LEAST[name]
    test = read("mnist", train=False, folder=real_data)
    real = replace(test, images=test.images[:6000], labels=test.labels[:6000])
    card = scorecard(batch, load_classifier("mnist-judge"), real, baselines=["best_of_n"])
    assert card["reached"][OWN] >= 158 / 160
    assert card["median_steps"][OWN] <= 50
    assert card["agreement"][OWN] >= agreement
    assert card["diversity"][OWN] >= diversity
    assert card["distance"][OWN] <= 1.2
    assert card["precision"][OWN] >= 0.75
    assert card["distinct"][OWN] >= 14
    assert card["gain"][OWN] >= 1.2
