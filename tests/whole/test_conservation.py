"""Relevance is conserved on networks as people load them: timm's families, transformers, recurrent and graph layers.

A network is small, random, and in float64. With constants in it, the ledger closes: input + absorbed = output. Without
them (biases, running means, class tokens, and embeddings of positions are set to zero) nothing is absorbed: the
relevance at the inputs is the output, under LRP-0, and where there is attention under CP-LRP. Under AttnLRP the
gradient of a softmax is no share of its relevance: there only the ledger closes.
"""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.recurrent import CELLS, RECURRENT, Recurrent
from torch import Tensor, nn
from torch.nn import functional as F

from plugin.attr import LRPTranspose

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]

TOLERANCE = 1e-5  # of the output; some norms of transformers compute in float32, whatever the model's type
# Parameters that are only added, by their name and that of their module.
CONSTANT = re.compile(
    r"bias|beta|pos_emb|position_emb|positional_emb|token_type_emb|wpe|rel_pos|(pixel|patch)_pos"
    r"|(cls|dist|reg|class)_(token|emb)"
)


def prepared(model: nn.Module, scale: float) -> nn.Module:
    """In float64, with constants of this size; scales matter, and no layer's weights are all zeros."""
    model.double().eval()
    random = torch.Generator().manual_seed(0)

    def noise(values: Tensor) -> Tensor:
        return torch.rand(values.shape, generator=random, dtype=torch.float64) - 0.5

    for name, parameter in model.named_parameters():
        if CONSTANT.search(".".join(name.split(".")[-2:])):
            parameter.data = scale * noise(parameter)
        elif parameter.ndim < 2:  # scales of norms and of layers, which begin at 1 or 1e-6
            parameter.data = 1 + noise(parameter)
        elif not parameter.any():  # heads begin at 0
            parameter.data = 0.1 * noise(parameter)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.copy_(scale * noise(buffer))
    return model


Inputs = Tensor | tuple[Tensor, ...]


def assert_conserves(model: nn.Module, inputs: Inputs, preset: str) -> None:
    """Of a model without constants: the relevance of the inputs is the output."""
    ledger = LRPTranspose(prepared(model, 0.0), preset).ledger(inputs, 1)
    missing, absorbed = abs(ledger.output - ledger.input), abs(ledger.absorbed)
    assert ledger.output != 0
    assert max(missing, absorbed) <= TOLERANCE * abs(ledger.output), str(ledger)


def assert_ledger_closes(model: nn.Module, inputs: Inputs, preset: str) -> None:
    """With constants, the relevance of the inputs and the relevance absorbed on the way add up to the output."""
    ledger = LRPTranspose(prepared(model, 0.2), preset).ledger(inputs, 1)
    missing = abs(ledger.output - ledger.input - ledger.absorbed)
    assert ledger.output != 0
    assert missing <= TOLERANCE * abs(ledger.output), str(ledger)


def tokens(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# -- timm --------------------------------------------------------------------------------------------------------------

TINY_VIT = {"img_size": 64, "depth": 2, "embed_dim": 48, "num_heads": 4}
TINY_SWIN = {"img_size": 64, "window_size": 4, "embed_dim": 24, "depths": (2, 2), "num_heads": (2, 4)}
SHORT = {"layers": (1, 1, 1, 1)}
SIZED = {"img_size": 64}

# One of each family: its name, the side of the image, arguments that make it small.
CONVOLUTIONAL: dict[str, tuple[int, dict[str, Any]]] = {
    "bat_resnext26ts": (256, {}),
    "convmixer_768_32": (32, {}),
    "convnext_atto": (64, {}),
    "convnextv2_atto": (64, {}),
    "convformer_s18": (64, {}),
    "cspresnet50": (64, {}),
    "darknet17": (64, {}),
    "densenet121": (64, {"block_config": (2, 2, 2, 2), "growth_rate": 8}),
    "dla46_c": (64, {}),
    "dpn48b": (64, {}),
    "eca_nfnet_l0": (32, {}),
    "ecaresnet26t": (64, {}),
    "efficientnet_b0": (64, {}),
    "efficientnet_lite0": (64, {}),
    "ese_vovnet19b_slim_dw": (64, {}),
    "fasternet_t0": (64, {}),
    "fastvit_t8": (64, {}),
    "focalnet_tiny_srf": (32, {}),
    "gernet_s": (64, {}),
    "ghostnet_050": (64, {}),
    "ghostnetv2_100": (64, {}),
    "gmlp_ti16_224": (64, SIZED),
    "hardcorenas_a": (64, {}),
    "hgnetv2_b0": (64, {}),
    "hrnet_w18_small": (64, {}),
    "inception_next_atto": (64, {}),
    "inception_v3": (96, {}),
    "lcnet_035": (64, {}),
    "mambaout_femto": (64, {}),
    "mixer_s32_224": (64, SIZED),
    "mnasnet_small": (64, {}),
    "mobilenetv2_035": (64, {}),
    "mobilenetv3_small_050": (64, {}),
    "mobilenetv4_conv_small_035": (64, {}),
    "mobileone_s0": (32, {}),
    "nf_resnet26": (64, {}),
    "poolformer_s12": (64, {}),
    "poolformerv2_s12": (64, {}),
    "regnetx_002": (64, {}),
    "regnety_002": (64, {}),
    "repghostnet_050": (64, {}),
    "repvgg_a0": (64, {}),
    "repvit_m0_9": (64, {}),
    "res2net50_14w_8s": (64, SHORT),
    "resmlp_12_224": (64, SIZED),
    "resnest14d": (64, {}),
    "resnet18": (64, {}),
    "resnetblur50": (64, SHORT),
    "resnetv2_50": (64, SHORT),
    "resnext26ts": (64, {}),
    "rexnet_100": (64, {}),
    "selecsls42": (64, {}),
    "seresnet18": (64, {}),
    "sequencer2d_s": (32, {"img_size": 32}),
    "skresnet18": (64, {}),
    "starnet_s1": (64, {}),
    "swiftformer_xs": (64, {}),
    "tf_efficientnet_b0": (64, {}),
    "tf_efficientnetv2_b0": (64, {}),
    "tinynet_e": (64, {}),
    "xception41": (64, {}),
}
ATTENDING: dict[str, tuple[int, dict[str, Any]]] = {
    "beit_base_patch16_224": (64, TINY_VIT),
    "botnet26t_256": (64, SIZED),
    "caformer_s18": (64, {}),
    "cait_xxs24_224": (64, {"img_size": 64, "depth": 2, "embed_dim": 48}),
    "coatnet_pico_rw_224": (64, SIZED),
    "convit_tiny": (64, {"img_size": 64, "depth": 2}),
    "crossvit_tiny_240": (240, {}),
    "davit_tiny": (64, {"depths": (1, 1, 1, 1), "embed_dims": (16, 32, 48, 64), "num_heads": (2, 2, 4, 4)}),
    "deit3_small_patch16_224": (64, TINY_VIT),
    "deit_tiny_distilled_patch16_224": (64, TINY_VIT),
    "efficientformer_l1": (224, {}),
    "efficientformerv2_s0": (224, {}),
    "efficientvit_m0": (224, {}),
    "eva02_tiny_patch14_224": (56, TINY_VIT | {"img_size": 56}),
    "gcvit_xxtiny": (64, SIZED),
    "hiera_tiny_224": (64, SIZED),
    "lambda_resnet26t": (64, {}),
    "levit_128s": (64, SIZED),
    "maxvit_rmlp_pico_rw_256": (64, SIZED),
    "mobilenetv4_hybrid_medium": (64, {}),
    "mobilevit_xxs": (64, {}),
    "mobilevitv2_050": (64, {}),
    "mvitv2_tiny": (64, SIZED),
    "naflexvit_base_patch16_gap": (64, {"depth": 2, "embed_dim": 48, "num_heads": 4}),
    "nest_tiny": (64, SIZED),
    "nextvit_small": (64, {}),
    "pit_ti_224": (64, SIZED),
    "pvt_v2_b0": (64, {}),
    "samvit_base_patch16": (64, TINY_VIT),
    "shvit_s1": (64, {}),
    "swin_tiny_patch4_window7_224": (64, TINY_SWIN),
    "swinv2_tiny_window8_256": (64, TINY_SWIN),
    "tiny_vit_5m_224": (64, {}),
    "tnt_s_legacy_patch16_224": (224, {"depth": 2}),
    "twins_svt_small": (64, SIZED),
    "visformer_tiny": (64, SIZED),
    "vit_relpos_small_patch16_224": (64, TINY_VIT),
    "vit_small_patch14_reg4_dinov2": (56, TINY_VIT | {"img_size": 56}),
    "vit_tiny_patch16_224": (64, TINY_VIT),
    "volo_d1_224": (64, SIZED),
}
# Networks with constants that cannot be set to zero, and those constants: only the ledger closes.
WITH_CONSTANTS: dict[str, tuple[int, dict[str, Any], str]] = {
    "edgenext_xx_small": (64, {}, "sines of the position are computed, projected and added"),
    "xcit_nano_12_p16_224": (
        64,
        {"img_size": 64, "depth": 2},
        "sines of the position are computed, projected and added",
    ),
}
# Which cannot: LRP has no meaning there, and says where.
REFUSED: dict[str, tuple[int, dict[str, Any], str]] = {
    "efficientvit_b0": (64, {}, r"div in layer '.*' \(LiteMLA\)"),  # linear attention divides by a sum of signals
}


def from_timm(name: str, side: int, options: dict[str, Any]) -> tuple[nn.Module, Tensor]:
    timm = pytest.importorskip("timm", reason="timm is not installed: pip install timm")
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=5, **options)
    return model, tokens(1, 3, side, side)


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_timm_without_attention(name) -> None:
    model, image = from_timm(name, *CONVOLUTIONAL[name])
    assert_ledger_closes(model, image, "lrp_0")
    assert_conserves(model, image, "lrp_0")


@pytest.mark.parametrize("name", ATTENDING)
def test_timm_with_attention(name) -> None:
    model, image = from_timm(name, *ATTENDING[name])
    assert_ledger_closes(model, image, "attn_lrp")
    assert_conserves(model, image, "cp_lrp")


@pytest.mark.parametrize("name", WITH_CONSTANTS)
def test_timm_with_constants_that_stay(name) -> None:
    side, options, _ = WITH_CONSTANTS[name]
    model, image = from_timm(name, side, options)
    assert_ledger_closes(model, image, "attn_lrp")
    assert_ledger_closes(model, image, "cp_lrp")
    with pytest.raises(AssertionError, match="absorbed"):
        assert_conserves(model, image, "cp_lrp")


@pytest.mark.parametrize("name", REFUSED)
def test_timm_that_has_no_meaning_under_lrp(name) -> None:
    side, options, message = REFUSED[name]
    model, image = from_timm(name, side, options)
    with pytest.raises(NotImplementedError, match=message):
        LRPTranspose(prepared(model, 0.2), "cp_lrp").attribute(image, 1)


# -- transformers ------------------------------------------------------------------------------------------------------


class Explained(nn.Module):
    """A model of transformers, from the embeddings of its tokens or from pixels to one row of numbers per example."""

    def __init__(self, model: nn.Module, run: Callable[..., Tensor]) -> None:
        super().__init__()
        self.model, self.run = model, run

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.run(self.model, *inputs)


SMALL_DECODER = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 11,
    "max_position_embeddings": 16,
}
SMALL_ENCODER = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "projection_dim": 12,
}
SMALL_IMAGE = SMALL_ENCODER | {"image_size": 16, "patch_size": 8}
SMALL_TEXT = SMALL_ENCODER | {"vocab_size": 11, "max_position_embeddings": 16}
IDS = torch.tensor([[1, 4, 2, 7, 10], [3, 3, 5, 9, 10]])


def last_token(model: nn.Module, embeddings: Tensor) -> Tensor:
    return model(inputs_embeds=embeddings, use_cache=False).logits[:, -1]


def last_decoded(model: nn.Module, encoded: Tensor, decoded: Tensor) -> Tensor:
    return model(inputs_embeds=encoded, decoder_inputs_embeds=decoded, use_cache=False).logits[:, -1]


def image_beside_texts(model: nn.Module, pixels: Tensor) -> Tensor:
    return model(pixel_values=pixels, input_ids=IDS).logits_per_image


SENTENCE, PIXELS = (tokens(2, 5, 24),), (tokens(2, 3, 16, 16),)
# By the class of the model: the arguments of its configuration, the explained output, and its inputs.
TRANSFORMERS: dict[str, tuple[dict[str, Any], Callable[..., Tensor], tuple[Tensor, ...]]] = {
    "GPT2LMHeadModel": (
        {"n_embd": 24, "n_layer": 2, "n_head": 4, "vocab_size": 11, "n_positions": 16},
        last_token,
        SENTENCE,
    ),
    "LlamaForCausalLM": (SMALL_DECODER, last_token, SENTENCE),
    "Qwen2ForCausalLM": (SMALL_DECODER, last_token, SENTENCE),
    "MistralForCausalLM": (SMALL_DECODER | {"sliding_window": 3}, last_token, SENTENCE),
    "GemmaForCausalLM": (SMALL_DECODER | {"head_dim": 6}, last_token, SENTENCE),
    "T5ForConditionalGeneration": (
        {"d_model": 24, "d_kv": 6, "d_ff": 40, "num_layers": 2, "num_heads": 4, "vocab_size": 11},
        last_decoded,
        (tokens(2, 5, 24), tokens(2, 3, 24, seed=1)),
    ),
    "BertForSequenceClassification": (SMALL_TEXT, lambda m, e: m(inputs_embeds=e).logits, SENTENCE),
    "DistilBertForSequenceClassification": (
        {"dim": 24, "hidden_dim": 40, "n_layers": 2, "n_heads": 4, "vocab_size": 11},
        lambda m, e: m(inputs_embeds=e).logits,
        SENTENCE,
    ),
    "ViTForImageClassification": (SMALL_IMAGE, lambda m, p: m(pixel_values=p).logits, PIXELS),
    "CLIPVisionModelWithProjection": (SMALL_IMAGE, lambda m, p: m(pixel_values=p).image_embeds, PIXELS),
    "CLIPModel": (
        {"text_config": SMALL_TEXT | {"eos_token_id": 10}, "vision_config": SMALL_IMAGE, "projection_dim": 12},
        image_beside_texts,
        PIXELS,
    ),
}


def from_transformers(name: str, attention: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed: pip install transformers")
    options, run, inputs = TRANSFORMERS[name]
    kind = getattr(transformers, name)
    config = kind.config_class(**options)
    torch.manual_seed(0)
    config._attn_implementation = attention
    return Explained(kind(config), run), inputs


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", TRANSFORMERS)
def test_transformers(name, attention) -> None:
    model, inputs = from_transformers(name, attention)
    assert_ledger_closes(model, inputs, "attn_lrp")
    assert_conserves(model, inputs, "cp_lrp")


# -- recurrent layers and graphs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("of", CELLS)
@pytest.mark.parametrize("options", RECURRENT)
def test_recurrent_layers(options, of) -> None:
    network = Recurrent(of, **RECURRENT[options])
    assert_ledger_closes(network, tokens(3, 6, 3), "lrp_0")
    assert_conserves(network, tokens(3, 6, 3), "lrp_0")


class GraphAttention(nn.Module):
    """Two layers of graph attention on one graph of nodes, with a softmax over the edges that end in a node."""

    EDGES = torch.tensor(
        [[0, 1, 2, 3, 4, 5, 0, 2, 4, 1, 0, 1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 0, 3, 5, 1, 4, 0, 1, 2, 3, 4, 5]]
    )

    def __init__(self, softmax: Callable[[Tensor, Tensor, int], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.mix = nn.ModuleList([nn.Linear(4, 6), nn.Linear(6, 6)])
        self.ends = nn.ParameterList([nn.Parameter(torch.randn(2, 6)) for _ in self.mix])
        self.head, self.softmax = nn.Linear(6, 3), softmax

    def forward(self, nodes: Tensor) -> Tensor:
        """Nodes (N, V, F) of N graphs with the same edges."""
        source, goal = self.EDGES
        for mix, (of_source, of_goal) in zip(self.mix, self.ends, strict=True):
            hidden = mix(nodes)
            scores = F.leaky_relu((hidden @ of_source)[:, source] + (hidden @ of_goal)[:, goal], 0.2)
            messages = hidden[:, source] * self.softmax(scores, goal, nodes.shape[1])[..., None]
            nodes = F.elu(torch.zeros_like(hidden).index_add(1, goal, messages))
        return self.head(nodes.mean(1))


def by_index_add(scores: Tensor, goal: Tensor, count: int) -> Tensor:
    exponentials = scores.exp()
    totals = exponentials.new_zeros(len(scores), count).index_add(1, goal, exponentials)
    return exponentials / totals[:, goal]


def by_scatter_add(scores: Tensor, goal: Tensor, count: int) -> Tensor:
    """As PyTorch Geometric: less the largest score that ends in the node, and with a small number below."""
    index = goal.expand_as(scores)
    largest = scores.new_full((len(scores), count), -torch.inf).scatter_reduce(1, index, scores.detach(), "amax")
    exponentials = (scores - largest.gather(1, index)).exp()
    totals = torch.zeros_like(largest).scatter_add(1, index, exponentials)
    return exponentials / (totals.gather(1, index) + 1e-16)


@pytest.mark.parametrize("preset", ["lrp_0", "cp_lrp", "attn_lrp"])
@pytest.mark.parametrize("softmax", [by_index_add, by_scatter_add])
def test_graph_attention_by_hand(softmax, preset) -> None:
    """The softmax of the edges is a weight, that gets nothing, under each preset."""
    network = GraphAttention(softmax)
    assert_ledger_closes(network, tokens(2, 6, 4), preset)
    assert_conserves(network, tokens(2, 6, 4), preset)
