"""The pages in Streamlit's simulator, from the entry point."""

import io
import re
import tomllib
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from support.simulator import ENTRY, go_to, maps, opened, png, programs, run, turn_to, widget

from plugin import models
from plugin.explorer import serving
from plugin.explorer.app import PAGES
from plugin.explorer.inputs import drawn_digit, offered_networks, offered_pictures, own_weights
from plugin.explorer.maps import answers
from plugin.explorer.serving import OPTIONS


def test_server_listens_to_this_machine_only():
    server = tomllib.loads((ENTRY.parent / ".streamlit" / "config.toml").read_text())["server"]
    assert server["address"] == "127.0.0.1"
    assert set(server["allowedHosts"]) == {"127.0.0.1", "localhost"}
    assert server["enableCORS"] is server["enableXsrfProtection"] is True
    assert server["maxUploadSize"] * 2**20 == own_weights.MAX_BYTES


def test_module_starts_the_server_with_the_same_options():
    def flat(table, prefix=""):
        for name, value in table.items():
            yield from flat(value, f"{prefix}{name}.") if isinstance(value, dict) else [(prefix + name, value)]

    file = (ENTRY.parent / ".streamlit" / "config.toml").read_text()
    assert dict(flat(tomllib.loads(file))) == OPTIONS


def test_script_of_the_module_has_no_neighbour_called_pages():
    """Streamlit would look for pages of its own kind there, and say that ours are not found."""
    script = Path(serving.__file__).with_name("streamlit_script.py")
    assert script.is_file()
    assert not script.with_name("pages").exists()


def test_first_view_shows_three_methods_side_by_side():
    at = opened()
    assert not at.error
    assert not at.warning
    titles = [text.value for text in at.markdown if "\n" not in text.value]
    assert titles == ["**Gradient**", "**Deconvnet**", "**Guided backprop**"]
    assert len(maps(at)) == len(programs(at)) == 3
    assert sum(" ms" in caption.value or " s," in caption.value for caption in at.caption) == 3
    assert widget(at, "selectbox", "network").options[:2] == list(models.names())
    assert at.query_params == {}


def test_a_map_of_zeros_says_why():
    subject, layer = offered_networks.open_network("all-cnn-c"), "features.relu5"
    responses = answers.responses(subject, offered_pictures.sample("cat").image, layer)
    inactive = ".".join(str(index) for index in np.argwhere(responses == 0)[0])
    at = opened(explain="neuron", layer=layer, neuron=inactive, methods="gradient,lrp-epsilon,deconvnet")
    assert sum("The neuron is not active for this picture" in caption.value for caption in at.caption) == 2


def test_changing_network_method_target_image_and_display():
    at = opened()
    run(widget(at, "pills", "methods").set_value(["guided-backprop", "guided-grad-cam"]))
    assert len(maps(at)) == 2
    assert widget(at, "selectbox", "layer").value
    run(widget(at, "selectbox", "target").set_value(5))
    assert all("target=5" in program and "'dog'" in program for program in programs(at))
    run(widget(at, "selectbox", "image").set_value("china"))
    assert all("'china'" in program for program in programs(at))
    run(widget(at, "selectbox", "network").set_value("model-c"))
    assert all("'model-c'" in program and "target=5" in program for program in programs(at))
    for view in ("colour", "green"):
        run(widget(at, "selectbox", "view").set_value(view))
        assert len(maps(at)) == 2
    run(widget(at, "segmented_control", "scale").set_value("shared"))
    limits = {program.partition("limit=")[2].partition(")")[0] for program in programs(at)}
    assert len(limits) == 1
    run(widget(at, "pills", "methods").set_value([]))
    assert "at least one method" in at.info[0].value
    assert at.query_params["network"] == "model-c"


def test_link_reproduces_the_view():
    at = opened(network="model-c", image="flower", methods="deconvnet,gradient", target="7", opacity="0.5", view="red")
    again = opened(**at.query_params)
    assert programs(at) == programs(again)
    assert "target=7" in programs(at)[0]
    assert "opacity=0.5" in programs(at)[0]


def test_going_back_in_the_browser_restores_the_view():
    at = opened()
    run(widget(at, "selectbox", "target").set_value(2))
    assert at.query_params == {"target": "2"}
    assert "target=2" not in programs(go_to(at))[0]
    go_to(at, target="2")
    assert "target=2" in programs(at)[0]


def test_address_that_is_older_than_the_view_changes_nothing():
    """The browser asks before it has seen the new address, or drops the parameters of the page that is open."""
    at = opened(target="3")
    run(widget(at, "selectbox", "target").set_value(2))
    for stale in ({"target": "3"}, {}):
        at.query_params.clear()
        for name, value in stale.items():
            at.query_params[name] = value
        run(at)
        assert at.query_params == {"target": "2"}
        assert "target=2" in programs(at)[0]


def test_neuron_of_a_layer():
    at = opened()
    run(widget(at, "segmented_control", "explain").set_value("neuron"))
    run(widget(at, "selectbox", "layer").set_value("features.conv2"))
    assert "NeuronModifiedBackprop" in programs(at)[0]
    first = at.query_params["neuron"]
    run(widget(at, "number_input", "neuron.0").set_value(0))
    assert at.query_params["neuron"].startswith("0.")
    (most_active,) = [button for button in at.button if button.label == "Most active neuron"]
    run(most_active.click())
    assert at.query_params["neuron"] == first
    run(widget(at, "pills", "methods").set_value(["guided-grad-cam", "gradient"]))
    assert "explains class scores only" in at.warning[0].value
    assert len(maps(at)) == 1


def test_note_on_a_link_stays_until_something_is_changed():
    def noted(at):
        return any("there is no target 99" in warning.value for warning in at.warning)

    at = opened(target="99")
    assert noted(at)
    assert noted(run(at))  # a page is drawn again when something in the background has ended
    run(widget(at, "selectbox", "image").set_value("coffee"))
    assert not noted(at)


def test_contrast_of_two_classes():
    at = opened(target="3", contrast="5")
    assert all("LogitDifference(model.network, 3, 5)" in program for program in programs(at))
    # The class maps end in a ReLU, where these two methods stop every negative signal.
    assert "Deconvnet and Guided backprop" in at.info[0].value
    at = opened(target="3", contrast="3")
    assert "the class alone" in at.info[0].value
    assert "LogitDifference" not in programs(at)[0]


def test_hostile_link_gets_sentences():
    at = opened(network="<script>", target="-1", methods="sorcery", neuron="x.y", percentile="nan", opacity="9")
    assert len(at.warning) == 1
    assert at.warning[0].value.count("The link's") == 6
    assert len(maps(at)) == 3
    at = opened(target="77", layer="features.nothing", methods="guided-grad-cam")
    assert "no target 77" in at.warning[0].value
    assert "`features.nothing`" in at.warning[0].value
    assert len(maps(at)) == 1


def test_upload_and_its_removal():
    at = opened()
    photograph = models.sample_images()["astronaut"]
    run(widget(at, "file_uploader", "file").set_value(("photo.png", png(photograph), "image/png")))
    assert at.query_params["image"] == "upload"
    assert len(at.query_params["picture"]) == 12
    assert "photo.png" in programs(at)[0]
    run(widget(at, "file_uploader", "file").set_value(None))
    assert "'cat'" in programs(at)[0]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"no picture", id="text"),
        pytest.param(b"", id="empty"),
        pytest.param(png(models.sample_images()["cat"])[:5000], id="truncated"),
    ],
)
def test_bad_upload_gets_a_sentence_and_loses_nothing(data):
    at = opened(target="3")
    run(widget(at, "file_uploader", "file").set_value(("photo.png", data, "image/png")))
    assert len(at.error) == 1
    assert not maps(at)
    run(widget(at, "selectbox", "image").set_value("coffee"))
    assert "target=3" in programs(at)[0]
    assert not at.error


def test_link_to_an_upload_asks_for_the_file():
    at = opened(image="upload", picture="0123456789ab")
    assert "0123456789ab" in at.info[0].value
    assert at.query_params["picture"] == "0123456789ab"


def finished(at, name):
    """The page after the job of this name has ended."""
    at.session_state[f"attribute.job.{name}"].wait(30)
    return run(at)


def test_weights_are_downloaded_on_request_only(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    asked = []

    def offline(url, timeout):
        asked.append(url)
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", offline)
    at = opened(network="resnet18", target="281")
    assert "45 MB" in at.warning[0].value
    assert not asked
    run(widget(at, "button", "start.download.resnet18").click())
    finished(at, "download.resnet18")
    assert len(asked) == 1
    assert "cannot be downloaded" in at.error[0].value
    assert at.query_params == {"network": "resnet18", "target": "281"}


def test_deconvnet_page_compares_the_twins():
    at = opened("deconvnet", network="model-c", layer="features.relu4", neuron="3.4.5", view="colour")
    assert not at.error
    assert not at.warning
    assert len(maps(at)) == len(programs(at)) == 8 + 4
    assert sum("DeconvNet(" in program for program in programs(at)) == 2
    assert "'features.relu4', (3, 32, 32), unpooling='center'" in programs(at)[0]
    headings = [heading.value for heading in at.subheader]
    assert headings[0].startswith("model-c\\: features.relu4, channel 3, row 4, column 5")
    assert headings[1].startswith("all-cnn-c\\: features.relu5")
    # The all-convolutional network has one deconvnet, with and without the picture.
    assert sum("osine 1.00 with" in caption.value for caption in at.caption) == 2
    run(widget(at, "selectbox", "unpooling").set_value("uniform"))
    assert "unpooling='uniform'" in programs(at)[0]
    run(widget(at, "number_input", "neuron.0").set_value(7))
    assert at.query_params["neuron"] == "7.4.5"
    again = opened("deconvnet", **at.query_params)
    assert programs(at) == programs(again)


def test_deconvnet_page_of_a_layer_without_positions_and_of_bad_links():
    at = opened("deconvnet", network="mnist-classifier", image="digit-3", layer="body.relu4", neuron="5")
    assert not at.warning
    assert len(maps(at)) == 8
    at = opened("deconvnet", layer="features.nothing", neuron="9.9.9", unpooling="sideways", frame="picture")
    assert at.warning[0].value.count("The link's") == 2
    assert "`features.nothing`" in at.warning[0].value
    assert len(maps(at)) == 12


def test_unit_goes_along_to_the_other_page():
    at = opened(explain="neuron", layer="features.relu3", neuron="7.2.3")
    turn_to(at, "deconvnet")
    run(at)
    assert "[(7, 2, 3)]" in programs(at)[0]


def test_sanity_check_on_request_warns():
    at = opened(methods="gradient,guided-backprop")
    assert len(at.dataframe) == 1  # the maps in numbers
    run(widget(at, "number_input", "randomise").set_value(2))
    assert at.query_params["randomise"] == "2"
    assert list(at.dataframe[0].value["Method"]) == ["Gradient", "Guided backprop"]
    assert list(at.dataframe[0].value["Made random"]) == ["features.class_conv, features.conv8"] * 2
    assert "Guided backprop: with random weights" in at.warning[0].value
    at = opened(randomise="1", explain="neuron", layer="features.relu3")
    assert any("for classes" in info.value for info in at.info)


def test_digit_classifier_takes_digits_and_drawings():
    at = opened(target="5")
    run(widget(at, "selectbox", "network").set_value("mnist-classifier"))
    assert at.query_params == {"network": "mnist-classifier", "image": "digit-3"}
    assert "model = digit_classifier()" in programs(at)[0]
    assert "most probable: 3" in widget(at, "selectbox", "target").options[0]
    assert widget(at, "selectbox", "view").options[0] == "Sum of channels"
    assert len(widget(at, "selectbox", "view").options) == 3
    run(widget(at, "selectbox", "image").set_value("drawing"))
    assert "empty" in at.info[0].value
    assert not maps(at)
    ink = drawn_digit.with_stroke(drawn_digit.blank(), [14, 14], [5, 22])
    go_to(at, network="mnist-classifier", image="drawing", drawing=drawn_digit.encode(ink))
    assert "most probable: 1" in widget(at, "selectbox", "target").options[0]
    assert f"picture('{drawn_digit.encode(ink)}')" in programs(at)[0]
    run(widget(at, "selectbox", "network").set_value("all-cnn-c"))
    assert "'cat'" in programs(at)[0]


def test_checkpoint_of_a_torchvision_network():
    network = torchvision.models.squeezenet1_1(num_classes=4)
    file = io.BytesIO()
    torch.save(network.state_dict(), file)
    at = opened(network="squeezenet1_1", target="3")
    uploader = f"weights.{'squeezenet1_1'}"
    run(widget(at, "file_uploader", uploader).set_value(("mine.pth", file.getvalue(), "application/octet-stream")))
    assert not at.error
    assert "models.load('squeezenet1_1', checkpoint='mine.pth')" in programs(at)[0]
    assert len(at.query_params["checkpoint"]) == 12
    assert widget(at, "selectbox", "target").options[1:] == [f"class {index} ({index})" for index in range(4)]
    run(widget(at, "selectbox", "network").set_value("all-cnn-c"))
    assert "checkpoint" not in at.query_params
    at = opened(network="squeezenet1_1", checkpoint="0123456789ab")
    assert "0123456789ab" in at.info[0].value


def test_lrp_page_shows_map_ledger_and_table():
    at = opened("lrp")
    assert not at.error
    assert not at.warning
    assert len(maps(at)) == len(programs(at)) == 1
    assert [chart for chart in at.get("plotly_chart") if "attribute.ledger" in chart.proto.id]
    assert "rules='epsilon_plus_flat'" in programs(at)[0]
    (statement,) = [text.value for text in at.markdown if text.value.startswith("**Logit")]
    logit, arrived, absorbed = (float(n) for n in re.findall(r"-?[0-9][0-9.e+-]*", statement)[:3])
    assert arrived + absorbed == pytest.approx(logit, abs=1e-3)
    table = at.dataframe[0].value
    assert table["layer"][0] == "features.class_conv"
    assert list(table["rule"])[-1] == "flat"
    assert table["entered"][0] == pytest.approx(logit, abs=1e-3)


def test_lrp_page_follows_preset_class_and_rules():
    at = opened("lrp", rules="features.conv1:gamma,features.conv4:box", target="3", contrast="5")
    assert "'network.features.conv4': ZBox(low=" in programs(at)[0]
    assert "features.conv4" in at.info[0].value
    run(widget(at, "selectbox", "contrast").set_value(-1))
    assert "'features.conv4': ZBox(low=" in programs(at)[0]
    run(at.button[0].click())
    assert at.query_params == {"target": "3"}
    run(widget(at, "selectbox", "preset").set_value("epsilon_gamma_box"))
    assert at.query_params == {"target": "3", "preset": "epsilon_gamma_box"}
    assert "rules = epsilon_gamma_box(low=" in programs(at)[0]
    assert list(at.dataframe[0].value["rule"])[-1] == "box"
    at = opened("lrp", preset="sorcery", rules="features.conv99:flat")
    assert "`sorcery`" in at.warning[0].value
    assert "`features.conv99`" in at.warning[1].value
    assert len(maps(at)) == 1


def test_choices_go_along_from_page_to_page():
    at = opened(methods="lrp-cp-lrp", target="5")
    run(
        widget(at, "file_uploader", "file").set_value(
            ("photo.png", png(models.sample_images()["astronaut"]), "image/png")
        )
    )
    kept = dict(at.query_params)
    turn_to(at, "lrp")
    at.query_params.clear()  # as the browser does when a title is clicked
    run(at)
    assert at.query_params == {name: value for name, value in kept.items() if name != "methods"}
    assert "target=5" in programs(at)[0]
    assert "photo.png" in programs(at)[0]
    assert any("Opened before: `photo.png`" in caption.value for caption in at.caption)
    turn_to(at, "attribute")
    at.query_params.clear()
    run(at)
    assert at.query_params == kept


def test_opening_page_shows_a_live_picture_and_leads_on_with_the_same_state():
    at = opened("", image="coffee", target="5", methods="lrp-epsilon")
    assert not at.warning
    assert [len(part.proto.imgs) for part in at.get("image")] == [1, 1]
    assert "Guided backprop" in at.get("image")[1].proto.imgs[0].caption
    assert any("all-cnn-c gives dog" in caption.value for caption in at.caption)
    assert at.query_params == {"image": "coffee", "target": "5"}
    links = {link.proto.page: link.proto for link in at.get("page_link")}
    assert {*links} == {page.path for page in PAGES if page.path}
    onward = [link.proto.query_string for link in at.get("page_link")][1:]
    assert all("image=coffee" in query for query in onward)
    uses = {page.path: page.uses for page in PAGES}
    pages = [link.proto.page for link in at.get("page_link")][1:]
    assert all(("target=5" in query) == ("target" in uses[page]) for page, query in zip(pages, onward, strict=True))
    assert [query for query in onward if "guided-backprop" in query] == onward[:1]
    assert [query for query in onward if "lrp-epsilon&" in f"{query}&"] == [onward[pages.index("attribute", 1)]]
    run(widget(at, "segmented_control", "image").set_value("rocket"))
    assert at.query_params["image"] == "rocket"


@pytest.mark.parametrize(
    ("query", "says"),
    [
        pytest.param({"network": "resnet18"}, "all-cnn-c gives cat", id="network to download"),
        pytest.param({"image": "upload", "picture": "0123456789ab"}, "all-cnn-c gives cat", id="upload"),
        pytest.param({"network": "mnist-classifier", "image": "drawing"}, "gives 3", id="drawing"),
        pytest.param({"network": "<b>", "target": "77"}, "all-cnn-c gives cat", id="hostile"),
    ],
)
def test_opening_page_always_has_a_picture_and_keeps_the_state(query, says):
    at = opened("", **query)
    assert any(says in caption.value.replace("\\", "") for caption in at.caption)
    assert not at.error
    assert "network" not in query or query["network"] == "<b>" or at.query_params["network"] == query["network"]


def test_maps_can_be_read_without_their_colours():
    at = opened(methods="gradient,guided-backprop", view="negative", target="3")
    assert all("figures.reduce_channels(attribution, 'negative')" in program for program in programs(at))
    table = at.dataframe[0].value
    assert list(table["Map"]) == ["Gradient", "Guided backprop"]
    assert list(table["Positive share"]) == ["0%", "0%"]
    assert all(value < 0 for value in table["Sum"])
    assert all(text.startswith("-") and "at row" in text for text in table["Smallest"])


def test_program_of_the_lrp_page_has_its_ledger():
    at = opened("lrp", target="3", contrast="5")
    assert "ledger = explain.ledger(inputs, 0)" in programs(at)[0]
    names = {}
    exec(programs(at)[0].replace("figure.show()", ""), names)
    table = next(frame.value for frame in at.dataframe if "to_bias" in frame.value)
    assert [entry.entered for entry in names["ledger"]] == pytest.approx(list(table["entered"]), rel=1e-4)
