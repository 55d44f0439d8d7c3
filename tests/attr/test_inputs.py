"""Inputs of a model and its layers: token ids, subclasses of tensors, other orders of dimensions, keywords."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import tv_tensors

from plugin import errors
from plugin.attr import (
    Deconvolution,
    GuidedBackprop,
    GuidedGradCam,
    LayerLRPTranspose,
    LRPTranspose,
    NeuronGuidedBackprop,
    NeuronLRPTranspose,
)
from plugin.attr._base import make_leaves


def convolutions() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)]
    return nn.Sequential(*layers).eval()


# -- token ids ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [GuidedBackprop, Deconvolution, LRPTranspose])
def test_token_ids_are_refused_with_what_to_pass(method: Any) -> None:
    text = nn.Sequential(nn.Embedding(20, 8), nn.Flatten(), nn.Linear(56, 3)).eval()
    with pytest.raises(
        TypeError, match=r"input 0 is torch.int64.*pass the embeddings, or attribute to the embedding"
    ) as e:
        method(text).attribute(torch.zeros(2, 7, dtype=torch.int64), 1)
    assert isinstance(e.value, errors.InputTypeError)


def test_integers_pass_as_they_are_where_they_are_allowed() -> None:
    ids, mask, values = torch.zeros(2, 7, dtype=torch.int64), torch.ones(2, 7, dtype=torch.bool), torch.ones(2, 7)
    leaves = make_leaves((ids, mask, values), allow_integers=True)
    assert [leaf.dtype for leaf in leaves] == [torch.int64, torch.bool, torch.float32]
    assert [leaf.requires_grad for leaf in leaves] == [False, False, True]
    with pytest.raises(errors.InputValueError, match="input 0 is empty"):
        make_leaves((ids[:0],), allow_integers=True)


def test_bags_of_token_ids_begin_at_their_mean() -> None:
    torch.manual_seed(0)
    text = nn.Sequential(nn.EmbeddingBag(20, 8), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3)).double().eval()
    ids = torch.randint(20, (2, 7))
    bags = text[0](ids).detach().requires_grad_()
    expected = bags * torch.autograd.grad(text[1:](bags)[:, 1].sum(), bags)[0]
    found = LayerLRPTranspose(text, "0", rules="lrp_0").attribute(ids, 1)
    torch.testing.assert_close(found, expected.detach())


# -- subclasses of tensors ---------------------------------------------------------------------------------------------


class Named(Tensor):
    """As MONAI's and fastai's: whatever is computed of it is one, too."""

    operations = 0

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        cls.operations += 1
        return super().__torch_function__(function, types, args, kwargs or {})


@pytest.mark.parametrize("wrap", [lambda t: t.as_subclass(Named), tv_tensors.Image, nn.Parameter])
@pytest.mark.parametrize("size", [None, 1])
def test_tensor_subclasses_are_taken_as_the_tensors_they_are(wrap: Any, size: int | None, images: Tensor) -> None:
    net, wrapped, Named.operations = convolutions(), wrap(images), 0
    attributions = [
        (GuidedBackprop(net), 1),
        (LRPTranspose(net), 1),
        (GuidedGradCam(net, "0"), 1),
        (LayerLRPTranspose(net, "0"), 1),
        (NeuronLRPTranspose(net, "4"), 1),
    ]
    for attribution, which in attributions:
        result = attribution.attribute(wrapped, which, internal_batch_size=size)
        (of_tuple, *_) = attribution.attribute((wrapped,), which, internal_batch_size=size)
        assert type(result) is torch.Tensor
        torch.testing.assert_close(result, attribution.attribute(images, which), rtol=1e-4, atol=1e-6)
        if not isinstance(attribution, LayerLRPTranspose):
            assert type(of_tuple) is torch.Tensor
    assert Named.operations == 0
    assert type(LRPTranspose(net).attribute_targets(wrapped, [0, 1])) is torch.Tensor


# -- layers whose first dimension is not that of the examples ----------------------------------------------------------


class Encoder(nn.Module):
    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.head, self.batch_first = nn.Linear(5, 8), nn.Linear(8, 3), batch_first
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=batch_first)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.embed(x)
        return self.head(self.layer(hidden if self.batch_first else hidden.transpose(0, 1)).mean(int(self.batch_first)))


class Documents(nn.Module):
    """Of three sentences each, which the first layer sees one by one."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.sentence, self.head = nn.Linear(5, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.sentence(x.flatten(0, 1))).view(len(x), 3, 6).mean(1))


def test_relevance_at_a_layer_that_has_the_sequence_first() -> None:
    x = torch.randn(5, 7, 5, generator=torch.Generator().manual_seed(1))
    want = LayerLRPTranspose(Encoder(True).eval(), "layer", rules="attn_lrp").attribute(x, 1).transpose(0, 1)
    attribution = LayerLRPTranspose(Encoder(False).eval(), "layer", rules="attn_lrp")
    for size in (None, 2, 3, 4, 5, 9):
        found = attribution.attribute(x, 1, internal_batch_size=size)
        torch.testing.assert_close(found, want, rtol=1e-4, atol=1e-6)
    with pytest.raises(
        ValueError, match=r"layer 'layer' .* no convergence delta: its relevance \(7, 5, 8\).* leave out"
    ):
        attribution.attribute(x, 1, return_convergence_delta=True)
    with pytest.raises(ValueError, match=r"does not show which dimension is theirs.* explain all examples at once"):
        attribution.attribute(x, 1, internal_batch_size=1)


def test_relevance_at_a_layer_that_sees_the_parts_of_examples() -> None:
    x = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(1))
    attribution = LayerLRPTranspose(Documents().eval(), "sentence")
    want = attribution.attribute(x, 1)
    assert want.shape == (12, 6)
    for size in (1, 2, 3):
        torch.testing.assert_close(attribution.attribute(x, 1, internal_batch_size=size), want)
    with pytest.raises(errors.LayerError, match=r"layer 'sentence' .* no convergence delta: its relevance \(12, 6\)"):
        attribution.attribute(x, 1, return_convergence_delta=True)


def test_the_delta_where_it_has_a_meaning(images: Tensor) -> None:
    attribution = LayerLRPTranspose(convolutions(), ["0", "2"])
    for size in (None, 1):
        relevance, deltas = attribution.attribute(images, 1, return_convergence_delta=True, internal_batch_size=size)
        assert [part.shape for part in relevance] == [(2, 6, 7, 7), (2, 6, 1, 1)]
        assert [delta.shape for delta in deltas] == [(2,), (2,)]
    with pytest.raises(errors.InputValueError, match=r"relevance \(3, 2\) has no sum for each of 2 examples"):
        attribution.compute_convergence_delta(torch.ones(3, 2), torch.ones(2))


# -- layers that are called by keyword ---------------------------------------------------------------------------------


class ByKeyword(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.head = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3), nn.Linear(6, 4)

    def forward(self, x: Tensor, by_keyword: bool = True) -> Tensor:
        hidden = F.relu(self.first(x))
        hidden = self.second(input=hidden) if by_keyword else self.second(hidden)
        return self.head(F.relu(hidden).mean((2, 3)))


def test_the_input_of_a_layer_that_is_called_by_keyword(images: Tensor) -> None:
    net = ByKeyword().eval()
    for attribution, which, at_input in (
        (LayerLRPTranspose(net, "second"), 1, "attribute_to_layer_input"),
        (NeuronLRPTranspose(net, "second"), (1, 2, 2), "attribute_to_neuron_input"),
        (NeuronGuidedBackprop(net, "second"), (1, 2, 2), "attribute_to_neuron_input"),
        (GuidedGradCam(net, "second"), 1, "attribute_to_layer_input"),
    ):
        found, want = (attribution.attribute(images, which, flag, **{at_input: True}) for flag in (True, False))
        assert torch.equal(found, want)
        assert want.any()


def test_masks_by_keyword_are_no_input_of_a_layer(images: Tensor) -> None:
    class Masked(nn.Module):
        def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
            return hidden * mask

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.masked = Masked()

        def forward(self, x: Tensor) -> Tensor:
            return self.masked(mask=torch.ones_like(x[:1]).tril(), hidden=x).sum((2, 3))

    relevance = LayerLRPTranspose(Net(), "masked").attribute(images, 1, attribute_to_layer_input=True)
    assert type(relevance) is torch.Tensor
    assert relevance.shape == images.shape
