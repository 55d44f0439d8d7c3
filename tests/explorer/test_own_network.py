"""The user's own network and picture: nothing but the user changes them, and their files are not lost."""

import io
import os

import pytest
import torch
from streamlit.util import calc_hash
from support.simulator import go_to, maps, opened, png, programs, run, turn_to, widget
from torchvision.models import squeezenet1_1

from plugin import models
from plugin.explorer.app import PAGES
from plugin.explorer.choices.settings import Settings, from_query
from plugin.explorer.server import connection
from plugin.explorer.server.kept_files import FileStore, link_name, sent

PHOTOGRAPH, OTHER = (png(models.sample_images()[name]) for name in ("astronaut", "rocket"))
DIGITS = "mnist-classifier"


def saved(state):
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


@pytest.fixture(scope="module")
def doubled():
    """A checkpoint of the user's own, for a small network."""
    state = models.load("all-cnn-c").network.state_dict()
    return saved({name: 2 * value for name, value in state.items()})


@pytest.fixture(scope="module")
def four_classes():
    """One for a network that sees many pixels."""
    torch.manual_seed(0)
    return saved(squeezenet1_1(num_classes=4).state_dict())


def upload(at, name, file, data):
    return run(widget(at, "file_uploader", name).set_value((file, data, "application/octet-stream")))


def own(data, network="all-cnn-c", **query):
    """The Attribute page with a network and a picture of the user's own."""
    at = opened(network=network, **query)
    upload(at, f"weights.{network}", "mine.pt", data)
    return upload(at, "file", "koala.png", PHOTOGRAPH)


def title(at, page):
    """Click the title of a page at the top: the browser drops the parameters."""
    at._page_hash = calc_hash(page)
    at.query_params.clear()
    return run(at)


def strip(at):
    (line,) = [caption.value for caption in at.caption if caption.value.startswith("Open: ")]
    return line


def button(at, label):
    (found,) = [button for button in at.button if button.label == label]
    return found


# Only the user changes the open files


def test_a_visit_to_any_page_leaves_the_users_network_checkpoint_class_and_picture(doubled):
    at = own(doubled, methods="gradient", target="3")
    before = programs(at), dict(at.query_params)
    assert "checkpoint='mine.pt'" in before[0][0]
    for page in PAGES:
        title(at, page.path)
        assert strip(at) == "Open: network all-cnn-c, weights `mine.pt`, picture `koala.png`"
        assert at.query_params["checkpoint"] == before[1]["checkpoint"]
        assert at.query_params["picture"] == before[1]["picture"]
        title(at, "attribute")
        assert (programs(at), dict(at.query_params)) == before, page.title


def test_the_unit_stays_chosen_on_pages_that_have_no_widget_for_it():
    """Attribute sets the layer without drawing its list; pages without one must not fall back to that value."""
    at = opened("attribute", methods="gradient")
    title(at, "deconvnet")
    chosen = {name: at.query_params[name] for name in ("layer", "neuron")}
    for page in ("compare", "tour"):
        title(at, page)
        run(at)  # as after any click
        title(at, "units")
        assert {name: at.query_params[name] for name in chosen} == chosen, page


def test_going_back_over_a_title_keeps_what_is_open(doubled):
    """A title at the top leaves an address without parameters in the history, which was never shown as a view."""
    at = own(doubled, methods="gradient")
    before = strip(at)
    assert "mine.pt" in before
    title(at, "lrp")
    assert strip(go_to(at)) == before
    assert "checkpoint" in at.query_params


def test_page_that_cannot_use_a_network_says_so_and_offers_another_for_itself_alone(four_classes):
    at = own(four_classes, "squeezenet1_1", methods="gradient", target="3")
    before = programs(at)
    title(at, "invariance")
    assert [info.value for info in at.info if "sees too many pixels" in info.value]
    assert not at.subheader
    run(button(at, f"Use {DIGITS} on this page alone").click())
    assert len(at.subheader) == 3
    assert strip(at).startswith(f"Open: network {DIGITS}")
    assert "on this page alone. The other pages have network squeezenet1\\_1, weights `mine.pt`" in strip(at)
    assert at.query_params == {"network": DIGITS, "image": "upload", "alone": "1", **own_picture(at)} | extras(at)
    title(at, "attribute")
    assert programs(at) == before
    title(at, "invariance")  # this page still shows it
    assert len(at.subheader) == 3
    run(button(at, "Show the inputs of the other pages here").click())
    assert not at.subheader
    assert "alone" not in at.query_params


def own_picture(at):
    return {name: at.query_params[name] for name in ("picture", "picture_name")}


def extras(at):
    return {name: at.query_params[name] for name in ("layer", "neuron", "data") if name in at.query_params}


def test_link_to_a_page_opens_the_network_it_names(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for page in ("invariance", "code-space"):
        at = opened(page, network="resnet18", target="281")
        assert strip(at) == "Open: network resnet18, picture cat"
        assert at.query_params["network"] == "resnet18"
        run(button(at, f"Use {DIGITS} on this page alone").click())
        assert strip(at).startswith(f"Open: network {DIGITS}")
        link = dict(at.query_params)
        title(at, "attribute")
        assert at.query_params == {"network": "resnet18", "target": "281"}
        again = opened(page, **link)
        assert again.query_params == link
        title(again, "attribute")
        assert again.query_params == {}


def test_class_chosen_on_a_page_alone_is_for_it_alone_and_a_network_chosen_there_for_all():
    at = opened(target="5", image="coffee")
    title(at, "code-space")
    run(button(at, f"Use {DIGITS} on this page alone").click())
    run(widget(at, "selectbox", "target").set_value(8))
    assert at.query_params["target"] == "8"
    title(at, "attribute")
    assert at.query_params == {"target": "5", "image": "coffee"}
    title(at, "code-space")
    assert at.query_params["target"] == "8"
    run(widget(at, "selectbox", "network").set_value("model-c"))
    assert "alone" not in at.query_params
    title(at, "attribute")
    assert at.query_params["network"] == "model-c"


def test_onward_link_with_another_network_leaves_that_of_the_other_pages():
    at = opened("tour", step="switches")
    (link,) = at.get("page_link")
    query = dict(pair.split("=") for pair in link.proto.query_string.split("&"))
    turn_to(at, link.proto.page)
    at.query_params.clear()
    for name, value in query.items():
        at.query_params[name] = value
    run(at)
    assert strip(at).startswith("Open: network model-c")
    title(at, "attribute")
    assert strip(at) == "Open: network all-cnn-c, picture cat"


def test_run_that_was_cut_short_changes_nothing(doubled):
    """A page is often drawn anew before its first run has written the address."""
    at = own(doubled, methods="gradient", target="3")
    before = dict(at.query_params)
    for page in ("deconvnet", "attribute", "attribute"):  # also the title of the page that is open
        for _ in range(2):  # as if the run that has just arrived had not come to its end
            title(at, page)
    assert dict(at.query_params) == before


@pytest.mark.parametrize("page", [page.path for page in PAGES])
def test_page_by_its_address_is_drawn_and_starts_nothing(page):
    at = opened(page)
    assert strip(at).endswith("network all-cnn-c, picture cat")
    assert not [name for name in at.session_state._state._state.filtered_state if ".job." in str(name)]
    assert not at.error
    assert at.query_params.get("network") is None


@pytest.mark.parametrize("network", ["all-cnn-c", "mnist-classifier"])
@pytest.mark.parametrize("page", [page.path for page in PAGES])
def test_page_that_is_drawn_again_keeps_its_link(page, network):
    """Also the choices that it makes for the user have stood there from the first."""
    at = opened(page, network=network, image="cat" if network == "all-cnn-c" else "digit-3")
    link = dict(at.query_params)
    run(at)
    assert dict(at.query_params) == link
    again = opened(page, **link)
    assert dict(again.query_params) == link


# Files survive


def test_files_survive_a_reload_on_this_machine(doubled):
    at = own(doubled, methods="gradient")
    again = opened(**at.query_params)
    assert not again.info
    assert programs(again) == programs(at)
    assert strip(again) == strip(at)


def test_files_are_for_the_session_where_the_server_answers_others(doubled, monkeypatch):
    monkeypatch.setattr(connection, "serves_this_machine_only", lambda: False)
    at = own(saved({"x": torch.ones(1)}), methods="gradient")  # in no store of another test
    assert at.error
    picture = png(models.sample_images()["flower"])
    upload(at, "file", "private.png", picture)
    title(at, "lrp")
    assert "`private.png`" in strip(at)
    again = opened(image="upload", picture=at.query_params["picture"], picture_name="private.png")
    assert "This link needs the picture `private.png`" in again.info[0].value


def test_checkpoint_and_class_come_back_with_their_network(four_classes):
    at = own(four_classes, "squeezenet1_1", methods="gradient", target="3")
    before = programs(at)
    run(widget(at, "selectbox", "network").set_value("all-cnn-c"))
    assert "checkpoint" not in at.query_params
    run(widget(at, "selectbox", "network").set_value("squeezenet1_1"))
    assert programs(at) == before
    run(button(at, "Use the weights of squeezenet1_1 again").click())
    assert "checkpoint" not in at.query_params


def test_picture_comes_back_from_the_list():
    at = opened(methods="gradient")
    upload(at, "file", "koala.png", PHOTOGRAPH)
    before = programs(at)
    title(at, "lrp")
    run(widget(at, "selectbox", "image").set_value("coffee"))
    assert "picture" not in at.query_params
    run(widget(at, "selectbox", "image").set_value("upload"))
    title(at, "attribute")
    assert programs(at) == before


def test_link_with_another_file_warns_and_names_both(doubled):
    wanted = {"image": "upload", "picture": "0123456789ab", "picture_name": "wanted.png"}
    at = opened(methods="gradient", **wanted)
    assert "needs the picture `wanted.png`, whose SHA-256 starts with 0123456789ab" in at.info[0].value
    assert dict(at.query_params).items() >= wanted.items()
    upload(at, "file", "other.png", OTHER)
    assert "`wanted.png` (SHA-256 0123456789ab…), and `other.png`" in at.warning[0].value
    assert len(maps(at)) == 1
    run(widget(at, "selectbox", "image").set_value("coffee"))
    assert not at.warning
    at = opened(network="all-cnn-c", checkpoint="0123456789ab", checkpoint_name="wanted.pt", methods="gradient")
    assert "needs the checkpoint `wanted.pt`" in at.info[0].value
    upload(at, "weights.all-cnn-c", "mine.pt", doubled)
    assert "another checkpoint than the link's: it needs `wanted.pt`" in at.warning[0].value
    assert "`mine.pt`" in at.warning[0].value


def test_link_never_shows_another_file_under_the_name_it_asks_for():
    at = opened(methods="gradient")
    upload(at, "file", "koala.png", PHOTOGRAPH)
    go_to(at, **{**at.query_params, "picture": "0123456789ab", "picture_name": "other.png"})
    assert "needs the picture `other.png`" in at.info[0].value
    assert not maps(at)


# The store


def test_store_is_bounded_and_knows_owners():
    store = FileStore(most_bytes=100, most_files=3)
    files = [sent(f"{index}.png", bytes([index]) * 40) for index in range(4)]
    for file in files[:2]:
        store.put("a", file)
    assert store.get("a", files[0].short) == files[0]  # now the other is the one that was not asked for longest
    store.put("a", files[2])
    assert store.get("a", files[1].short) is None
    assert store.get("a", files[0].short) == files[0]
    assert store.get("b", files[0].short) is None
    large = sent("large.pt", bytes(1000))
    store.put("b", large)
    assert store.get("b", large.short) == large
    assert store.get("a", files[0].short) is None


@pytest.mark.parametrize("name", ["koala.png", "<b>.pt", "a`b.png", "no ending", "", "é" * 300 + ".jpeg", "x.tar.gz"])
def test_name_of_a_file_survives_a_link(name):
    settings = Settings(image="upload", picture="0123456789ab", picture_name=link_name(name))
    assert from_query(settings.to_query(), (), ()) == (settings, [])
    assert not {*"`<>"} & {*settings.picture_name}


def test_browser_is_known_by_its_token_and_not_by_its_mask():
    def cookie(token):
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[place % 4] for place, byte in enumerate(token))
        return f"2|{mask.hex()}|{masked.hex()}|1700000000"

    first, second = bytes(range(16)), bytes(range(1, 17))
    assert connection.browser_of(cookie(first)) == connection.browser_of(f'"{cookie(first)}"')
    assert connection.browser_of(cookie(first)) != connection.browser_of(cookie(second))
    for forged in ("", "2|", "2||00|1", "1|00|00|1", "2|zz|00|1", "2|00000000|00|1"):
        assert connection.browser_of(forged) is None
