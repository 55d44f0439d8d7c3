"""The explorer without Streamlit: links, uploads, attributions, snippets."""

import contextlib
import io
import struct
import warnings
import zlib
from dataclasses import replace
from functools import cache

import numpy as np
import plotly.graph_objects as go
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from plugin import figures, models
from plugin.explorer.choices.fitting import fit, follow
from plugin.explorer.choices.offered_methods import METHODS, OF_PICTURES
from plugin.explorer.choices.settings import UPLOAD, VIEWS, Settings, from_query
from plugin.explorer.inputs import drawn_digit, offered_networks, offered_pictures, weight_downloads
from plugin.explorer.inputs.layer_outputs import axes
from plugin.explorer.inputs.subject import layer_shapes
from plugin.explorer.maps import answers, ledgers, map_programs, questions, rendering
from plugin.explorer.maps.questions import Look, Question
from plugin.explorer.server.kept_files import sent
from plugin.explorer.server.meter import cost
from plugin.explorer.server.untrusted_text import markdown_sentence
from plugin.explorer.widgets import chart_options
from plugin.models import pictures
from plugin.rules.presets import PRESETS

NETWORKS, SAMPLES = ("all-cnn-c", "model-c", "vgg16"), ("cat", "china")
CAT = offered_pictures.sample("cat")


opened = cache(offered_networks.open_network)


@pytest.fixture(scope="module")
def subject():
    return opened("all-cnn-c")


# Links


@pytest.mark.parametrize(
    "settings",
    [
        Settings(),
        Settings("model-c", image="china", methods=("guided-grad-cam", "gradient"), target=3, layer="features.relu3"),
        Settings(target=3, contrast=5, checkpoint="0123456789ab", randomise=3, unpooling="uniform", frame="whole"),
        Settings(image="drawing", drawing=drawn_digit.encode(np.eye(28, dtype=bool))),
        Settings(explain="neuron", layer="features.conv2", neuron=(95, 0, 31), view="colour", scale="shared"),
        Settings(preset="attn_lrp", rules=(("features.conv1", "box"), ("features.conv2", "flat"))),
        Settings(image="upload", picture="0123456789ab", percentile=97.5, opacity=0.25, target=0),
        Settings(methods=()),
    ],
)
def test_link_gives_the_same_settings_back(settings):
    assert from_query(settings.to_query(), NETWORKS, SAMPLES) == (settings, [])


def test_link_of_the_defaults_is_empty():
    assert Settings().to_query() == {}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("network", "<script>alert(1)</script>"),
        ("network", ""),
        ("image", "../../etc/passwd"),
        ("picture", "xyz"),
        ("methods", "gradient,sorcery"),
        ("methods", ","),
        ("explain", "everything"),
        ("target", "-1"),
        ("target", "1e3"),
        ("target", "1_0"),
        ("target", "٣"),
        ("target", "9" * 5000),
        ("contrast", "cat"),
        ("layer", "features.relu3'); import os"),
        ("layer", "a" * 5000),
        ("neuron", "1.2.3.4"),
        ("neuron", "1..2"),
        ("neuron", "NaN"),
        ("view", "![x](http://example.com/x.png)"),
        ("percentile", "nan"),
        ("percentile", "inf"),
        ("percentile", "49"),
        ("opacity", "1.01"),
        ("opacity", "None"),
        ("scale", "\x00"),
        ("preset", "sorcery"),
        ("rules", "features.conv1"),
        ("rules", "features.conv1:sorcery"),
        ("rules", "[x](y):flat"),
        ("rules", "features.conv1:flat,"),
    ],
)
def test_bad_link_falls_back_with_one_sentence(name, value):
    settings, notes = from_query({name: value}, NETWORKS, SAMPLES)
    assert settings == Settings()
    (note,) = notes
    assert name in note
    assert len(note) < 200
    # A stranger's text stands in one pair of backticks, where Markdown renders nothing.
    assert note.count("`") == 2
    assert value == "" or "\x00" not in note


def test_unknown_parameters_are_passed_over():
    assert from_query({"utm_source": "x"}, NETWORKS, SAMPLES) == (Settings(), [])


def test_sentences_render_nothing():
    sentence = markdown_sentence(ValueError("no <b>bold</b>, no [link](x) and no :red[colour]"))
    assert sentence.startswith("No \\<b\\>")
    assert "\\[link\\]\\(x\\)" in sentence
    assert sentence.endswith(".")


@pytest.mark.parametrize("name", ["mine.pt", "zoo:Unet", "hf-hub:owner/name"])
def test_sentences_begin_with_a_name_as_it_is(name):
    assert markdown_sentence(f"{name} cannot be read").replace("\\", "").startswith(f"{name} cannot")


LAYERS = {"conv": (8, 4, 4), "relu": (8, 4, 4), "pool": (8, 1, 1), "linear": (10,)}


@pytest.mark.parametrize(
    ("change", "expected", "sentences"),
    [
        ({"target": 9}, {"target": 9}, 0),
        ({"target": 10}, {"target": None}, 1),
        ({"contrast": 11, "target": 12}, {"contrast": None, "target": None}, 2),
        ({"layer": "missing"}, {"layer": ""}, 1),
        ({"methods": ("guided-grad-cam",)}, {"layer": "relu"}, 0),
        ({"explain": "neuron", "layer": "linear", "neuron": (9,)}, {"neuron": (9,)}, 0),
        ({"explain": "neuron", "layer": "linear", "neuron": (10,)}, {"neuron": ()}, 1),
        ({"explain": "neuron", "layer": "conv", "neuron": (1, 2)}, {"neuron": ()}, 1),
        ({"explain": "neuron", "neuron": (1, 2, 3)}, {"layer": "relu", "neuron": ()}, 0),
    ],
)
def test_settings_are_fitted_to_a_network(change, expected, sentences):
    settings, notes = fit(replace(Settings(), **change), [str(i) for i in range(10)], LAYERS)
    assert {name: getattr(settings, name) for name in expected} == expected
    assert len(notes) == sentences


def test_choices_that_lose_their_meaning_are_dropped():
    before = Settings(target=3, contrast=5, layer="features.relu3", neuron=(1, 2, 3))
    twin = follow(replace(before, network="model-c"), before, same_classes=True)
    assert (twin.target, twin.contrast, twin.layer, twin.neuron) == (3, 5, "", ())
    other = follow(replace(before, network="vgg16"), before, same_classes=False)
    assert (other.target, other.contrast) == (None, None)
    ruled = replace(before, rules=(("features.conv1", "flat"),))
    assert follow(replace(ruled, network="model-c"), ruled, same_classes=True).rules == ()
    assert follow(replace(ruled, preset="epsilon"), ruled, same_classes=True).rules == ()
    assert follow(replace(ruled, target=4), ruled, same_classes=True).rules == ruled.rules
    assert follow(replace(before, layer="features.relu4"), before, same_classes=True).neuron == ()
    assert follow(replace(before, opacity=0.5), before, same_classes=True).neuron == (1, 2, 3)


@pytest.mark.parametrize(
    ("shape", "names"),
    [
        ((96, 16, 16), ("channel", "row", "column")),
        ((7, 7, 768), ("row", "column", "channel")),
        ((64, 49, 32), ("axis 0", "axis 1", "axis 2")),
        ((197, 768), ("position", "feature")),
        ((10,), ("unit",)),
    ],
)
def test_axes_are_named_by_where_the_square_is(shape, names):
    assert axes(shape) == names


# Uploads


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, format=kind, **options)
    return file.getvalue()


def png_header(width, height):
    """A PNG that claims a size and holds next to nothing."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


SMALL = CAT.image.resize((48, 32))
BAD_UPLOADS = {
    "empty": (b"", "empty"),
    "text": (b"hello, this is no picture", "not a picture"),
    "html": (b"<!doctype html><svg xmlns='http://www.w3.org/2000/svg'/>", "not a picture"),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage", "not a picture"),
    "too many bytes": (b"\x89PNG" + bytes(pictures.MAX_BYTES), "at most 10 MB"),
    "bomb": (png_header(60_000, 60_000), "too many pixels"),
    "small bomb": (png_header(7_000, 7_000), "too many pixels"),
    "thread": (png_header(5_000, 2), "longer side"),
    "truncated PNG": (encoded(SMALL)[:900], "damaged or truncated"),
    "truncated JPEG": (encoded(SMALL, "JPEG")[:-400], "damaged or truncated"),
    "header only": (png_header(40, 40), "damaged or truncated"),
}


@pytest.mark.parametrize("name", BAD_UPLOADS)
@pytest.mark.filterwarnings("ignore:Image size:PIL.Image.DecompressionBombWarning")
def test_bad_upload_gets_one_sentence(name):
    data, reason = BAD_UPLOADS[name]
    with pytest.raises(ValueError, match=reason) as caught:
        pictures.decode(data)
    assert "\n" not in str(caught.value)


def test_damaged_uploads_never_raise_anything_else():
    random = np.random.default_rng(0)
    for kind in ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "PPM"):
        whole = np.frombuffer(encoded(SMALL, kind), np.uint8)
        for _ in range(40):
            damaged = whole.copy()
            damaged[random.integers(0, len(damaged), 8)] = random.integers(0, 256, 8)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with contextlib.suppress(ValueError):
                    assert pictures.decode(damaged.tobytes()).mode == "RGB"


def test_photograph_is_turned_upright():
    exif = Image.Exif()
    exif[0x0112] = 6
    decoded = pictures.decode(encoded(SMALL, "JPEG", exif=exif, quality=100))
    assert decoded.size == (32, 48)
    difference = np.asarray(decoded, int) - np.asarray(SMALL.rotate(-90, expand=True), int)
    assert np.abs(difference).mean() < 3


def test_unusual_modes_become_rgb():
    decoded = pictures.decode(encoded(SMALL.convert("CMYK"), "JPEG", quality=100))
    assert np.abs(np.asarray(decoded, int) - np.asarray(SMALL, int)).mean() < 5
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    grey = np.asarray(pictures.decode(encoded(Image.fromarray(ramp))))[..., 0]
    np.testing.assert_allclose(grey, ramp / 257, atol=1)
    shares = Image.fromarray(np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8))
    assert np.asarray(pictures.decode(encoded(shares, "TIFF"))).max() == 255
    for mode in ("1", "L", "P"):
        assert pictures.decode(encoded(SMALL.convert(mode))).mode == "RGB"


def test_transparent_parts_become_white():
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    assert np.asarray(pictures.decode(encoded(clear))).min() == 255
    palette = SMALL.convert("P")
    palette.info["transparency"] = palette.getpixel((0, 0))
    assert pictures.decode(encoded(palette, transparency=palette.getpixel((0, 0)))).getpixel((0, 0)) == (255, 255, 255)


def test_first_frame_of_an_animation():
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    for kind in ("GIF", "WEBP", "PNG"):
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], lossless=True)
        red, _, blue = pictures.decode(data).getpixel((8, 8))
        assert red > 200 > 50 > blue


def test_samples_have_stable_digests():
    assert offered_pictures.sample("cat").digest == CAT.digest != offered_pictures.sample("china").digest
    with pytest.raises(ValueError, match="no sample image 'dog'"):
        offered_pictures.sample("dog")


# Networks and attributions


def test_networks_offer_bundled_and_torchvision():
    names = offered_networks.choices()
    assert names[: len(models.names())] == models.names()
    assert "resnet18" in names
    assert not [name for name in names if "quantized" in name or "segmentation" in name]


def test_download_is_announced_with_its_size(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name in ("all-cnn-c", offered_networks.DIGITS):
        assert weight_downloads.missing(name) == ""
    assert "45 MB" in weight_downloads.missing("resnet18")
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "resnet18-f37072fd.pth").touch()
    assert weight_downloads.missing("resnet18") == ""


def test_torchvision_network_by_name(real_data, tmp_path, monkeypatch):
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    weights = load_file(real_data / "imagenet" / "squeezenet1_0_imagenet.safetensors")
    torch.save(weights, folder / "squeezenet1_0-b66bff10.pth")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert weight_downloads.missing("squeezenet1_0") == ""
    subject = offered_networks.open_network("squeezenet1_0")
    top = int(answers.outputs(subject, CAT.image).argmax())
    assert "cat" in subject.model.classes[top]
    settings, _ = fit(Settings(methods=("guided-grad-cam",)), subject.model.classes, subject.layers)
    question = questions.question_of(settings, "guided-grad-cam", top)
    result = answers.compute(subject, CAT.image, question)
    assert result.attribution.shape == (3, 224, 224)
    assert np.abs(result.attribution).max() > 0


def test_layers_are_those_that_run_once(subject):
    assert subject.layers["features.conv3"] == (96, 16, 16)
    assert not [module for module in subject.model.network.modules() if module._forward_hooks]

    class Reusing(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.relu, self.head = torch.nn.Conv2d(3, 3, 1), torch.nn.ReLU(), torch.nn.Conv2d(3, 2, 1)

        def forward(self, images):
            return self.relu(self.head(self.relu(self.conv(images)))).mean((2, 3))

    layers, outputs = layer_shapes(models.load(Reusing()))
    assert list(layers) == ["conv", "head"]
    assert outputs.shape == (1, 2)


def test_every_method_names_classes_that_exist():
    for method in METHODS.values():
        if method.explains_class:
            assert method.attribution_class(neuron=False).__name__ == method.explains_class
        if method.explains_neuron:
            assert method.attribution_class(neuron=True).__name__ == method.explains_neuron


def test_gradient_of_a_contrast_is_the_difference_of_gradients(subject):
    def gradient(**question):
        return answers.compute(subject, CAT.image, Question("gradient", **question)).attribution

    expected = gradient(target=3) - gradient(target=5)
    np.testing.assert_allclose(gradient(target=3, contrast=5), expected, atol=1e-5)
    assert np.abs(expected).max() > 0


def test_result_says_what_it_took(subject):
    result = answers.compute(subject, CAT.image, Question("guided-backprop", target=3))
    assert result.attribution.shape == (3, 32, 32)
    assert result.seconds > 0
    assert result.peak_bytes is None or 0 <= result.peak_bytes < 2**30
    assert "ms" in cost(replace(result, seconds=0.01, peak_bytes=None))
    assert cost(replace(result, seconds=2.0, peak_bytes=2**20)) == "2.0 s, 1.0 MB on cpu"


def test_failure_is_one_sentence_that_names_the_method(subject):
    with pytest.raises(ValueError, match=r"Guided backprop has no answer for all-cnn-c: .*\.$"):
        answers.compute(subject, CAT.image, Question("guided-backprop", target=10))
    with pytest.raises(ValueError, match="explains class scores only"):
        answers.compute(subject, CAT.image, Question("guided-grad-cam", layer="features.relu3", neuron=(0, 1, 1)))


def test_most_active_neuron_is_active(subject):
    channel, row, column = answers.largest(answers.responses(subject, CAT.image, "features.relu3"))
    kept = []
    layer = subject.model.network.get_submodule("features.relu3")
    with torch.no_grad(), layer.register_forward_hook(lambda _m, _i, output: kept.append(output)):
        subject.model.network(subject.model.preprocess(CAT.image))
    assert kept[0][0, channel, row, column] == kept[0].max() > 0


# Layer-wise relevance propagation


def test_every_preset_is_a_method():
    assert {method.preset for method in METHODS.values()} == {"", *PRESETS}
    assert len({method.label for method in METHODS.values()}) == len(METHODS)


@pytest.mark.parametrize("network", models.names())
@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_conserves_on_the_bundled_networks(network, preset):
    subject = opened(network)
    top = int(answers.outputs(subject, CAT.image).argmax())
    question = questions.lrp_question(Settings(network, preset=preset), top)
    attribution = answers.compute(subject, CAT.image, question).attribution
    ledger = ledgers.compute(subject, CAT.image, question)
    with torch.no_grad():
        logit = float(subject.model.network(subject.model.preprocess(CAT.image))[0, top])
    assert np.isfinite(attribution).all()
    assert 0 < attribution.clip(min=0).sum() < 100 * logit
    assert ledger.output == pytest.approx(logit, rel=1e-5)
    assert ledger.input == pytest.approx(float(attribution.sum(dtype=np.float64)), abs=1e-4 * logit)
    assert ledger.input + ledger.absorbed == pytest.approx(logit, rel=1e-3)
    assert "in no entry" not in ledgers.statement(ledger, Look(subject, CAT).ask(question))


def test_ledger_of_a_contrast_names_the_layers_of_the_network(subject):
    question = Question("lrp-epsilon-plus", target=3, contrast=5)
    ledger = ledgers.compute(subject, CAT.image, question)
    assert [entry.layer for entry in ledger][-1] == "features.conv1"
    alone = [ledgers.compute(subject, CAT.image, replace(question, target=t, contrast=None)).output for t in (3, 5)]
    assert ledger.output == pytest.approx(alone[0] - alone[1], rel=1e-4)
    assert ledgers.statement(ledger, Look(subject, CAT).ask(question)).startswith(
        f"**Difference of logits {ledger.output:.5g} = "
    )


def test_chart_and_table_show_the_numbers_of_the_ledger(subject):
    ledger = ledgers.compute(subject, CAT.image, Question("lrp-epsilon", target=3))
    left, to_bias, to_stabiliser, entered = ledgers.figure(ledger).data
    table = ledgers.rows(ledger, Look(subject, CAT).ask(Question("lrp-epsilon", target=3)))
    for trace, name in ((left, "left"), (to_bias, "to_bias"), (to_stabiliser, "to_stabiliser")):
        assert list(trace.x) == [getattr(entry, name) for entry in ledger] == [getattr(row, name) for row in table]
    np.testing.assert_allclose(entered.x, [entry.entered for entry in ledger], rtol=1e-6)
    assert list(left.customdata) == [entry.layer for entry in ledger] == [row.layer for row in table]
    assert [row.layer for row in table][:: len(table) - 1] == ["features.class_conv", "features.conv1"]
    assert {row.rule for row in table} == {"epsilon"}


def test_a_legend_above_a_chart_lies_below_the_button_that_saves_it():
    bars = figures.ledger_bars(["fc"], [1.0], [0.0], [0.0])
    assert bars.layout.legend.yanchor == "bottom"
    assert chart_options.on_page(bars).layout.margin.t > 40
    assert chart_options.on_page(figures.signed_map(np.ones((2, 2)))).layout.margin.t == 0


@pytest.mark.parametrize("contrast", [None, 5])
def test_rules_of_single_layers_win_over_the_preset(subject, contrast):
    def rules_by_layer(*chosen):
        question = Question("lrp-epsilon-gamma-box", target=3, contrast=contrast, rules=chosen)
        ledger = ledgers.compute(subject, CAT.image, question)
        return {row.layer: row.rule for row in ledgers.rows(ledger, Look(subject, CAT).ask(question))}

    preset = rules_by_layer()
    assert preset["features.conv1"] == "box"
    assert preset["features.conv2"] == "gamma"
    chosen = {"features.conv1": "w-square", "features.conv5": "z-plus"}
    assert rules_by_layer(*chosen.items()) == preset | chosen


def test_rules_without_a_layer_and_relevance_that_ends_between_layers_are_reported(subject):
    question = Question("lrp-epsilon", target=3, rules=(("features.conv3", "flat"), ("features.conv77", "flat")))
    ledger = ledgers.compute(subject, CAT.image, question)
    assert ledgers.idle(ledger, question.rules) == "No linear layer that ran is called `features.conv77`."
    assert ledgers.idle(ledger, question.rules[:1]) == ""
    asked = Look(subject, CAT).ask(question)
    # Inside the network flat gives relevance to inactive units, too.
    lost = next(row for row in ledgers.rows(ledger, asked) if row.layer == "inactive inputs of features.conv3")
    assert abs(lost.to_stabiliser) > 1e-3 * abs(ledger.output)
    assert "is in no entry" not in ledgers.statement(ledger, asked)
    short = replace(ledger, input=ledger.input - 2.5)
    assert "2.5 is in no entry: it ended between layers" in ledgers.statement(short, asked)


@pytest.mark.parametrize("mean", [(0.5, 0.5, 0.5), (0.485, 0.456, 0.406), (0.0, 0.0, 1.0)])
def test_bounds_enclose_every_picture(mean):
    preprocessing = models.Preprocessing(4, 4, mean, (0.229, 0.224, 0.225))
    low, high = preprocessing.input_range
    black, white = (preprocessing(Image.new("RGB", (4, 4), colour)) for colour in ("black", "white"))
    assert low <= float(black.min()) < low + 0.002
    assert high - 0.002 < float(white.max()) <= high


# Snippets, files, figures

QUESTIONS = {
    **{f"{name}, class": {"methods": (name,), "target": 3} for name in OF_PICTURES},
    **{
        f"{name}, neuron": {"methods": (name,), "explain": "neuron", "layer": "features.relu5"}
        for name, method in METHODS.items()
        if method.explains_neuron
    },
    "contrast": {"methods": ("gradient",), "target": 3, "contrast": 5, "opacity": 0.5},
    "colour": {"methods": ("guided-backprop",), "view": "colour"},
    "one channel": {"methods": ("deconvnet",), "view": "blue", "percentile": 90.0},
    "upload": {"methods": ("gradient",), "image": "upload"},
    "LRP of a contrast": {"methods": ("lrp-epsilon-gamma-box",), "target": 3, "contrast": 5},
    "LRP of changed rules": {
        "methods": (),
        "contrast": 5,
        "preset": "epsilon_gamma_box",
        "rules": (("features.conv1", "flat"), ("features.conv7", "alpha2-beta1")),
    },
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_snippet_gives_the_map_on_screen(name, subject, tmp_path, monkeypatch):
    monkeypatch.setattr(go.Figure, "show", lambda figure: None)
    monkeypatch.chdir(tmp_path)
    settings, notes = fit(replace(Settings(), **QUESTIONS[name]), subject.model.classes, subject.layers)
    assert not notes
    picture = CAT
    if settings.image == UPLOAD:
        data = encoded(offered_pictures.sample("china").image.convert("CMYK"), "JPEG")
        (tmp_path / "it's a photo.jpg").write_bytes(data)
        picture = offered_pictures.own(sent("it's a photo.jpg", data))
    if settings.explain == "neuron":
        responses = answers.responses(subject, picture.image, settings.layer)
        settings = replace(settings, neuron=answers.largest(responses))
    if settings.methods:
        question = questions.question_of(settings, settings.methods[0], top_class=3)
    else:
        question = questions.lrp_question(settings, top_class=3)
    method = question.method
    result = answers.compute(subject, picture.image, question)
    limit = rendering.limits({method: result}, settings)[method]
    visible = subject.model.visible(picture.image) if question.needs_picture else None
    shown = rendering.figure(result, settings, limit, visible, height=360)

    program: dict = {}
    exec(map_programs.program(settings, question, picture, limit, subject), program)

    np.testing.assert_array_equal(program["attribution"], result.attribution)
    assert program["figure"].to_dict()["data"][-1].keys() == shown.to_dict()["data"][-1].keys()
    data_key = "customdata" if settings.view == "colour" else "z"
    np.testing.assert_array_equal(program["figure"].data[-1][data_key], shown.data[-1][data_key])
    assert limit > 0


def test_shared_scale_has_one_limit(subject):
    settings = Settings(target=3)
    results = {
        name: answers.compute(subject, CAT.image, questions.question_of(settings, name, 3)) for name in settings.methods
    }
    assert len(set(rendering.limits(results, settings).values())) == 3
    assert len(set(rendering.limits(results, replace(settings, scale="shared")).values())) == 1
    assert rendering.limits({}, replace(settings, scale="shared")) == {}


def test_files_hold_what_is_on_screen(subject):
    settings, question = Settings(target=3, view="sum"), Question("guided-backprop", target=3)
    result = answers.compute(subject, CAT.image, question)
    with np.load(io.BytesIO(rendering.npz(result, settings, question, CAT, 0.5)), allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["attribution"], result.attribution)
        np.testing.assert_array_equal(arrays["map"], result.attribution.sum(0))
        assert CAT.digest in str(arrays["settings"])
        assert torch.__version__.split("+")[0] in str(arrays["versions"])
    ledger = ledgers.compute(subject, CAT.image, Question("lrp-epsilon-plus", target=3))
    file = rendering.npz(result, settings, question, CAT, 0.5, ledgers.arrays(ledger))
    with np.load(io.BytesIO(file), allow_pickle=False) as arrays:
        for name in ("layer", "rule", "entered", "left", "to_bias", "to_stabiliser"):
            assert arrays[f"ledger_{name}"].tolist() == [getattr(entry, name) for entry in ledger]
        absorbed = arrays["ledger_to_bias"].sum() + arrays["ledger_to_stabiliser"].sum()
        assert arrays["ledger_input"] + absorbed == pytest.approx(float(arrays["ledger_output"]), rel=1e-3)
    for view in VIEWS:
        png = rendering.png(result, replace(settings, view=view), 0.5, subject.model.visible(CAT.image))
        assert Image.open(io.BytesIO(png)).size == (512, 512)


def test_picture_that_a_map_covers_is_not_sent():
    result = answers.Answer(np.ones((3, 32, 32), np.float32), 0.0, None)
    for view in ("sum", "colour"):
        for opacity, count in ((1.0, 1), (0.5, 2)):
            settings = Settings(view=view, opacity=opacity)
            assert len(rendering.figure(result, settings, 1.0, CAT.image, height=360).data) == count
