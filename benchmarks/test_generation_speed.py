"""Activation maximisation in code space, and a step of training a GAN, against the passes they cannot do without."""

import pytest
import torch
from benchmark_session import synchronising
from torch.nn import functional as F

from gan.classifiers import ConvolutionalClassifier
from gan.data import ImageSet
from gan.maximising import CodeSpaceAM
from gan.networks import DCGAN, MLPGAN
from gan.training import Recipe, Trainer
from plugin.measuring.cases import Case, Row

SHAPE, RUNS = (1, 28, 28), 16


@synchronising
@pytest.mark.priority(1)
@pytest.mark.filterwarnings("ignore:.*did not reach stop_at")  # no run is to stop early
@pytest.mark.parametrize("architecture", ["mlp", "dcgan"])
def test_maximization_speed(architecture, session, measure) -> None:
    """The floor is as many forward passes and gradients at the codes: no choice of a start, no prior, nothing kept."""
    session.check_time()
    torch.manual_seed(0)
    generator = {"mlp": MLPGAN, "dcgan": DCGAN}[architecture](SHAPE).generator.requires_grad_(False).eval()
    classifier = ConvolutionalClassifier(SHAPE, tuple("0123456789")).requires_grad_(False).eval()
    maximizer, steps = CodeSpaceAM(classifier, generator), 50 if session.timed else 2
    codes = torch.randn(RUNS, generator.code_size)

    def ours():
        return maximizer.maximize(target=0, runs=RUNS, seed=0, steps=steps, stop_at=1.0)

    def floor():
        for _ in range(steps):
            leaf = codes.clone().requires_grad_()
            torch.autograd.grad(classifier(generator(leaf))[:, 0].sum(), leaf)

    measure(Row(architecture, "code-space-am", "ours", RUNS), Case(ours, floor))


@synchronising
@pytest.mark.priority(1)
@pytest.mark.parametrize("architecture", ["mlp", "dcgan"])
def test_training_speed(architecture, session, measure, tmp_path) -> None:
    """The floor is both losses with their gradients: no penalty, no optimiser, no moving average."""
    session.check_time()
    batch = 128 if session.timed else 4
    recipe = Recipe(architecture, batch_size=batch, precision="float32")
    random = torch.Generator().manual_seed(0)
    data = ImageSet("random", torch.randint(256, (batch, *SHAPE), dtype=torch.uint8, generator=random))
    trainer, plain = Trainer(recipe, data, tmp_path / "ours"), Trainer(recipe, data, tmp_path / "floor")
    generator, discriminator = plain.generator, plain.discriminator

    def floor():
        with torch.no_grad():
            made = generator(plain.codes())
        loss = F.softplus(-discriminator(plain.batch())).mean() + F.softplus(discriminator(made)).mean()
        torch.autograd.grad(loss, list(discriminator.parameters()))
        loss = F.softplus(-discriminator(generator(plain.codes()))).mean()
        torch.autograd.grad(loss, list(generator.parameters()))

    measure(Row(architecture, "gan-step", "ours", batch), Case(trainer.train_step, floor))
    assert trainer.step > 0
