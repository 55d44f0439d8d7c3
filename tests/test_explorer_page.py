"""The pages in Streamlit's simulator, from the entry point."""

import io
import re
import tomllib
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest
from streamlit.util import calc_hash

from plugin import models
from plugin.explorer import images

ENTRY = Path(__file__).parents[1] / "streamlit_app.py"


def opened(page="", **query):
    at = AppTest.from_file(str(ENTRY), default_timeout=60)
    turn_to(at, page)
    for name, value in query.items():
        at.query_params[name] = value
    return run(at)


def turn_to(at, page):
    """Open a page by its path. The simulator's own `switch_page` takes pages that are files."""
    at._page_hash = calc_hash(page) if page else ""


def run(page_or_widget):
    at = page_or_widget.run()
    assert not at.exception
    return at


def widget(at, kind, name):
    return getattr(at, kind)(key=f"attribute.{name}")


def maps(at):
    return [chart for chart in at.get("plotly_chart") if "attribute.map" in chart.proto.id]


def programs(at):
    return [block.value for block in at.code if "models.load(" in block.value]


def png(image):
    file = io.BytesIO()
    image.save(file, format="PNG")
    return file.getvalue()


def test_server_listens_to_this_machine_only():
    server = tomllib.loads((ENTRY.parent / ".streamlit" / "config.toml").read_text())["server"]
    assert server["address"] == "127.0.0.1"
    assert set(server["allowedHosts"]) == {"127.0.0.1", "localhost"}
    assert server["enableCORS"] is server["enableXsrfProtection"] is True
    assert server["maxUploadSize"] * 2**20 == images.MAX_BYTES


def test_first_view_shows_three_methods_side_by_side():
    at = opened()
    assert not at.error
    assert not at.warning
    assert [text.value for text in at.markdown] == ["**Gradient**", "**Deconvnet**", "**Guided backprop**"]
    assert len(maps(at)) == len(programs(at)) == 3
    assert sum(" ms" in caption.value or " s," in caption.value for caption in at.caption) == 3
    assert widget(at, "selectbox", "network").options[:2] == list(models.names())
    assert at.query_params == {}


def test_changing_network_method_target_image_and_display():
    at = opened()
    run(widget(at, "multiselect", "methods").set_value(["guided-backprop", "guided-grad-cam"]))
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
    run(widget(at, "multiselect", "methods").set_value([]))
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
    at.query_params.clear()
    assert "target=2" not in programs(run(at))[0]


def test_neuron_of_a_layer():
    at = opened()
    run(widget(at, "segmented_control", "explain").set_value("neuron"))
    run(widget(at, "selectbox", "layer").set_value("features.conv2"))
    assert "NeuronGradient" in programs(at)[0]
    first = at.query_params["neuron"]
    run(widget(at, "number_input", "neuron.0").set_value(0))
    assert at.query_params["neuron"].startswith("0.")
    run(at.button[0].click())
    assert at.query_params["neuron"] == first
    run(widget(at, "multiselect", "methods").set_value(["guided-grad-cam", "gradient"]))
    assert "explains class scores only" in at.warning[0].value
    assert len(maps(at)) == 1


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
    run(at.file_uploader[0].set_value(("photo.png", png(photograph), "image/png")))
    assert at.query_params["image"] == "upload"
    assert len(at.query_params["picture"]) == 12
    assert "photo.png" in programs(at)[0]
    run(at.file_uploader[0].set_value(None))
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
    run(at.file_uploader[0].set_value(("photo.png", data, "image/png")))
    assert len(at.error) == 1
    assert not maps(at)
    run(widget(at, "selectbox", "image").set_value("coffee"))
    assert "target=3" in programs(at)[0]
    assert not at.error


def test_link_to_an_upload_asks_for_the_file():
    at = opened(image="upload", picture="0123456789ab")
    assert "0123456789ab" in at.info[0].value
    assert at.query_params["picture"] == "0123456789ab"


def test_weights_are_downloaded_on_request_only(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    asked = []

    def offline(name):
        asked.append(name)
        raise models.WeightsUnavailable("the weights of resnet18 cannot be downloaded")

    monkeypatch.setattr(models, "load", offline)
    at = opened(network="resnet18", target="281")
    assert "45 MB" in at.warning[0].value
    assert not asked
    run(at.button[0].click())
    assert asked == ["resnet18"]
    assert "cannot be downloaded" in at.error[0].value
    assert at.query_params == {"network": "resnet18", "target": "281"}


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
    run(at.file_uploader[0].set_value(("photo.png", png(models.sample_images()["astronaut"]), "image/png")))
    kept = dict(at.query_params)
    turn_to(at, "lrp")
    at.query_params.clear()  # as the browser does when a title is clicked
    run(at)
    assert at.query_params == kept
    assert "target=5" in programs(at)[0]
    assert "photo.png" in programs(at)[0]
    assert any("photo.png" in caption.value for caption in at.caption)
