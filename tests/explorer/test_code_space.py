"""The Code space and Invariance pages: their work as plain functions, the pages in the simulator and in a browser."""

import io
import json
import re
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.browser import choose, settle, until
from support.helpers import slow
from support.simulator import opened, run, turn_to, widget
from torch import nn

from gan.maximising.objectives import direction
from gan.maximising.priors import PRIORS as PRIORS_OF_GAN
from gan.maximising.spaces import SPACES as SPACES_OF_GAN
from plugin.experiments import units
from plugin.explorer.choices.fitting import follow, generator_of, to_be_maximised
from plugin.explorer.choices.settings import PRIORS, Settings
from plugin.explorer.inputs import image_sets, offered_networks
from plugin.explorer.inputs.offered_pictures import sample
from plugin.explorer.inputs.subject import Subject, layer_shapes
from plugin.explorer.inputs.unit_maximizers import SPACES
from plugin.explorer.pages.code_space import judgements, run_programs, run_reports
from plugin.explorer.pages.code_space.last_runs import remembered
from plugin.explorer.pages.code_space.plans import endings, plan_of, settled
from plugin.explorer.pages.code_space.runs import maximize
from plugin.explorer.pages.invariance import figure_findings, figure_programs, figure_questions, figure_reports
from plugin.explorer.server.jobs import Job
from plugin.observing import outputs_of

DIGITS = Settings(network="mnist-classifier", generator="gan-mnist", runs=3, steps=12)
CONV3 = replace(DIGITS, explain="neuron", layer="body.conv3", neuron=(7, 3, 3))
CRITERIA = {
    "class": replace(DIGITS, target=4, seed=5),
    "class by DCGAN": replace(DIGITS, target=2, generator="dcgan-mnist", prior="gaussian"),
    "position of a channel": CONV3,
    "mean of a channel": replace(CONV3, span="channel"),
    "as in the picture": replace(CONV3, span="direction", image="digit-3", neuron=(0, 3, 3)),
    "as in the picture, in Fourier space": replace(
        CONV3, span="direction", image="digit-3", neuron=(0, 3, 3), generator="fourier", steps=5
    ),
    "hidden unit": replace(DIGITS, explain="neuron", layer="body.hidden", neuron=(9,)),
    "all steps": replace(DIGITS, target=4, until="steps", steps=5),
    "difference of classes": replace(DIGITS, target=4, contrast=9),
    "what real images reach": replace(DIGITS, target=4, until="data", data="digits", count=200),
    "best real image for a unit": replace(CONV3, until="data", data="digits", count=60),
    "pixels": replace(CONV3, generator="pixels"),
    "maco to what real images reach": replace(
        DIGITS, target=4, generator="maco", steps=4, until="data", data="digits", count=200
    ),
}


@pytest.fixture(scope="module")
def digit_classifier():
    return offered_networks.open_network("mnist-classifier")


def maximized(settings, subject):
    picture = sample(settings.image) if settings.span == "direction" else None
    plan = plan_of(settings, subject, picture)
    view = Job(lambda task: maximize(task, plan, subject, picture)).wait(120)
    assert view.completed, view.error
    return view.result


def executed(program, folder, monkeypatch):
    monkeypatch.chdir(folder)
    names = {}
    exec(compile(program, "snippet", "exec"), names)
    return names


@pytest.mark.filterwarnings("ignore:.* did not reach stop_at")
@pytest.mark.parametrize("name", CRITERIA)
def test_program_and_file_give_the_images_on_screen(name, digit_classifier, tmp_path, monkeypatch):
    outcome = maximized(CRITERIA[name], digit_classifier)
    result = executed(run_programs.program(outcome, digit_classifier), tmp_path, monkeypatch)["result"]
    torch.testing.assert_close(result.images, outcome.result.images, atol=1e-4, rtol=0)
    with np.load(io.BytesIO(run_reports.npz(outcome))) as file:
        np.testing.assert_array_equal(file["images"], outcome.result.images)
        assert file["scores"].shape == (outcome.result.step, 3)
        recorded = json.loads(str(file["settings"]))
        assert (recorded["generator"], recorded["seed"]) == (CRITERIA[name].generator, CRITERIA[name].seed)
        assert "torch" in json.loads(str(file["versions"]))
        drawn = outcome.result.maximizer.render(torch.from_numpy(file["codes"]))
        torch.testing.assert_close(drawn, outcome.result.images, atol=1e-5, rtol=0)
    assert (tmp_path / "maximized.png").is_file()


@pytest.mark.filterwarnings("ignore:.* did not reach stop_at")
@pytest.mark.parametrize("space", SPACES)
def test_spaces_of_a_network_that_normalises_its_input(space, tmp_path, monkeypatch):
    subject = offered_networks.open_network("all-cnn-c")
    outcome = maximized(Settings(generator=space, runs=2, steps=3, target=3), subject)
    assert outcome.result.images.shape == (2, 3, 32, 32)
    result = executed(run_programs.program(outcome, subject), tmp_path, monkeypatch)["result"]
    torch.testing.assert_close(result.images, outcome.result.images, atol=1e-4, rtol=0)


NEURON = {"explain": "neuron", "layer": "features.conv5", "neuron": (3, 4, 4)}


@pytest.mark.filterwarnings("ignore:.* did not reach stop_at")
@pytest.mark.parametrize("unit", [slow({"target": 8}), NEURON])
def test_codes_of_coloured_pictures(unit, tmp_path, monkeypatch):
    subject = offered_networks.open_network("model-c")
    outcome = maximized(Settings(network="model-c", generator="dcgan-cifar10", runs=2, steps=4, **unit), subject)
    assert outcome.result.images.shape == (2, 3, 32, 32)
    assert outcome.result.codes.shape == (2, 128)
    result = executed(run_programs.program(outcome, subject), tmp_path, monkeypatch)["result"]
    torch.testing.assert_close(result.images, outcome.result.images, atol=1e-5, rtol=0)


def test_what_was_stopped_is_kept_and_can_be_made_again(digit_classifier, tmp_path, monkeypatch):
    plan = plan_of(replace(CONV3, steps=500), digit_classifier)
    job = Job(lambda task: maximize(task, plan, digit_classifier))
    while job.look().running and not (job.look().partial and job.look().partial.result.step >= 3):
        pass
    job.stop()
    view = job.wait(60)
    assert not view.running
    assert not view.completed
    outcome = view.partial
    assert 3 <= outcome.result.step < 500
    assert run_reports.statement(outcome).startswith(f"Stopped after {outcome.result.step} steps.")
    result = executed(run_programs.program(outcome, digit_classifier), tmp_path, monkeypatch)["result"]
    torch.testing.assert_close(result.images, outcome.result.images, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "settings", [replace(DIGITS, generator="pixels", until="probability", target=4, steps=2), CONV3]
)
def test_runs_that_fall_short_are_told_on_the_page_and_not_in_the_log(settings, digit_classifier):
    with warnings.catch_warnings(record=True) as logged:
        outcome = maximized(settings, digit_classifier)
    assert logged == []
    assert outcome.finished
    missed = ~outcome.result.reached
    if settings.explain == "neuron":  # nothing was to be reached
        assert run_reports.shortfall(outcome) == ""
        return
    best = float(outcome.result.probabilities[missed].max())
    assert run_reports.shortfall(outcome).startswith(f"{int(missed.sum())} of 3 runs did not reach 0.99 in 2 steps, ")
    assert f" came to {best:.4g}." in run_reports.shortfall(outcome)
    assert run_reports.shortfall(replace(outcome, result=replace(outcome.result, reached=~missed | missed))) == ""


def test_gif_and_png(digit_classifier):
    outcome = maximized(CONV3, digit_classifier)
    with Image.open(io.BytesIO(run_reports.gif(outcome))) as file:
        assert file.n_frames > 1  # type: ignore[attr-defined]
        size = file.size
    with Image.open(io.BytesIO(run_reports.png(outcome))) as file:
        assert min(file.size) > 200
    assert min(size) > 50
    assert len(run_reports.curves(outcome).data) == 3 + 1


def test_judgement_has_both_baselines(digit_classifier):
    outcome = maximized(replace(DIGITS, runs=4), digit_classifier)
    assert not judgements.obstacle(digit_classifier)
    view = Job(lambda task: judgements.judge(task, outcome, digit_classifier)).wait(240)
    assert view.completed, view.error
    judgement = view.result
    assert set(judgements.pictures(judgement)) == {"Best of N random codes", "Pixel space", "Real images"}
    lines = {line["Measure"]: line for line in judgements.table(judgement)}
    assert set(judgements.figure(judgement).data[0].y) <= set(judgements.METHODS.values())
    agreement = lines["Judge's first choice is the target"]
    assert agreement["Maximised"] >= agreement["Pixel space"]
    assert judgement.same_data == any("nearest real" in measure for measure in lines)
    assert judgement.same_data or "MNIST" in judgements.caption(judgement)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.* did not reach stop_at")
def test_pictures_of_cifar10_are_judged_where_real_ones_are(monkeypatch, real_data):
    subject = offered_networks.open_network("all-cnn-c")
    monkeypatch.setattr(image_sets, "folders", tuple)
    assert "--data FOLDER" in judgements.obstacle(subject)
    assert "digits and of CIFAR-10" in judgements.obstacle(replace(subject, name="resnet18"))
    names = tuple(map(str, range(10)))
    assert "not those of this all-cnn-c" in judgements.obstacle(
        replace(subject, model=replace(subject.model, classes=names))
    )
    monkeypatch.setattr(image_sets, "folders", lambda: (real_data,))
    assert not judgements.obstacle(subject)
    some = [values[:1000] for values in image_sets._cifar10()]  # the judge would look at all
    monkeypatch.setattr(image_sets, "_cifar10", lambda: some)
    outcome = maximized(Settings(generator="dcgan-cifar10", runs=2, steps=4, target=8), subject)
    view = Job(lambda task: judgements.judge(task, outcome, subject)).wait(240)
    assert view.completed, view.error
    lines = {line["Measure"]: line for line in judgements.table(view.result)}
    assert lines["Judge's first choice is the target"]["Real images"] >= 0.5
    assert "CIFAR-10" in judgements.caption(view.result)


def test_last_sixteen_runs(digit_classifier):
    first = maximized(replace(DIGITS, runs=10), digit_classifier)
    runs = remembered([], first, "class 0")
    runs = remembered(runs, first, "class 0")
    assert len(runs) == 10
    second = maximized(replace(DIGITS, runs=10, seed=50), digit_classifier)
    runs = remembered(runs, second, "class 0")
    assert len(runs) == 16
    assert runs[-1].label == "class 0, seed 59"


def test_priors_are_those_of_the_gan_module():
    assert set(PRIORS) == set(PRIORS_OF_GAN)


def test_spaces_are_those_of_the_gan_module():
    assert set(SPACES) == set(SPACES_OF_GAN)


def test_generator_and_network_go_together():
    assert generator_of(Settings()) == generator_of(Settings(network="model-c")) == "dcgan-cifar10"
    assert generator_of(Settings(network="resnet18", generator="gan-mnist")) == "fourier"
    assert generator_of(DIGITS) == "gan-mnist"
    for space in SPACES:
        assert generator_of(replace(DIGITS, generator=space)) == generator_of(Settings(generator=space)) == space
    assert to_be_maximised(Settings(), 3) == Settings(generator="dcgan-cifar10", target=3)
    # Another network of pictures keeps the space, digits get their generator back.
    maco = Settings(generator="maco")
    assert follow(replace(maco, network="model-c"), maco, same_classes=True).generator == "maco"
    assert follow(replace(maco, network="mnist-classifier"), maco, same_classes=False).generator == "dcgan-mnist"
    # A drawer, or another kind of unit, brings its own end of runs.
    ended = replace(DIGITS, until="probability")
    assert follow(replace(ended, generator="fourier"), ended, same_classes=True).until == ""
    assert follow(replace(ended, contrast=3), ended, same_classes=True).until == ""
    assert follow(replace(ended, seed=3), ended, same_classes=True).until == "probability"


def test_runs_end_where_it_suits(digit_classifier, monkeypatch):
    ends = lambda settings, subject=digit_classifier: endings(settings, subject)  # noqa: E731
    assert ends(DIGITS) == ("probability", "steps", "data")
    assert ends(replace(DIGITS, generator="fourier")) == ("steps", "probability", "data")
    assert ends(CONV3) == ends(replace(DIGITS, contrast=3)) == ("steps", "data")
    pictures = offered_networks.open_network("all-cnn-c")
    monkeypatch.setattr(image_sets, "available", lambda name: name in ("crops", "digits"))
    # The crops of photographs are of no class of the network's, and excite its units all the same.
    assert ends(Settings(generator="fourier"), pictures) == ("steps", "probability")
    assert ends(Settings(), pictures) == ("probability", "steps")
    assert ends(Settings(explain="neuron", layer="features.conv3"), pictures) == ("steps", "data")
    left_open = settled(Settings(until="data", data="cifar10"), pictures)
    assert (left_open.until, left_open.generator) == ("probability", "dcgan-cifar10")
    drawn = settled(Settings(until="data", data="cifar10", generator="maco"), pictures)
    assert (drawn.until, drawn.generator) == ("steps", "maco")


def test_what_data_reach_is_stated(digit_classifier):
    outcome = maximized(CRITERIA["what real images reach"], digit_classifier)
    images, labels = image_sets.real_images("digits", digit_classifier.model, 200)
    chances = digit_classifier.model.network(images.float() / 255).softmax(1)[labels == 4, 4]
    assert outcome.wanted == pytest.approx(float(chances.quantile(0.5)))
    assert f"those of the class reach probability {outcome.wanted:.4g} in the median" in run_reports.statement(outcome)
    outcome = maximized(CRITERIA["best real image for a unit"], digit_classifier)
    assert f"Of 60 images (Scikit-learn's digits), the best reaches {outcome.wanted:.4g}." in run_reports.statement(
        outcome
    )
    short = maximized(replace(CRITERIA["best real image for a unit"], generator="pixels", steps=1), digit_classifier)
    assert run_reports.shortfall(short).endswith("Allow more steps.")


def test_a_direction_is_what_the_layer_has_for_the_picture(digit_classifier):
    """Its first image is of the picture's kind already: the best of random codes; the climb makes it more so."""
    settings = CRITERIA["as in the picture"]
    outcome = maximized(settings, digit_classifier)
    model = digit_classifier.model
    of = lambda inputs: outputs_of(model.network, ["body.conv3"], inputs)["body.conv3"]  # noqa: E731
    vector = of(model.preprocess(sample("digit-3").image))[0, :, 3, 3]
    expected = direction(vector, 2.0)(of(outcome.result.images))
    torch.testing.assert_close(outcome.result.scores[-1], expected)
    assert (outcome.result.scores[-1] > outcome.result.scores[0]).all()


def test_a_picture_without_anything_there_is_no_direction(digit_classifier):
    model = digit_classifier.model
    silent = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(10)).eval()
    nn.init.constant_(silent[0].bias, -100)
    subject = replace(digit_classifier, model=replace(model, network=silent), layers={"1": (2, 26, 26)})
    picture = sample("digit-3")
    settings = replace(CONV3, generator="fourier", span="direction", layer="1", neuron=(0, 4, 5))
    plan = plan_of(settings, subject, picture)
    view = Job(lambda task: maximize(task, plan, subject, picture)).wait(120)
    assert view.error == "all channels of 1 are 0 for this picture at row 4, column 5"


def own_network(*last):
    """A subject with another head."""
    digits = offered_networks.digit_classifier()
    network = nn.Sequential(digits.network, *last).eval()
    model = replace(digits, network=network, name="own")
    return Subject("own", model, layer_shapes(model)[0], "made()")


@pytest.mark.parametrize(("last", "of"), [(nn.Sigmoid(), torch.sigmoid), (nn.Softmax(1), lambda x: x.softmax(1))])
def test_the_probability_is_that_which_the_head_defines(last, of, digit_classifier):
    subject = own_network(last)
    outcome = maximized(Settings(network="own", generator="fourier", runs=2, steps=12, target=4), subject)
    expected = of(digit_classifier.model.network(outcome.result.images))[:, 4].tolist()
    assert [row["Probability"] for row in run_reports.rows(outcome)] == pytest.approx(expected, abs=1e-4)
    assert run_reports.curves(outcome).layout.yaxis.title.text == "probability of the class"
    assert max(expected) > 0.3, "a softmax of probabilities stays below 0.24"


def test_a_silent_start_is_told(digit_classifier):
    """No code makes unit 56 fire. The grey image does not make unit 2 fire, and others do."""
    hidden = replace(DIGITS, explain="neuron", layer="body.relu4", runs=2, steps=40)
    outcome = maximized(replace(hidden, neuron=(56,)), digit_classifier)
    assert outcome.result.silent.all()
    note = run_reports.silence(outcome)
    assert "random codes were looked at" in note
    assert "2 of 2 runs were given up" in note
    helped = maximized(replace(hidden, neuron=(2,), generator="fourier", steps=120), digit_classifier)
    assert helped.result.scores[0].max() == 0 < helped.result.scores[-1].min()
    assert run_reports.silence(helped).startswith("The unit is silent where 2 of 2 runs begin: these climb before its")
    assert run_reports.silence(maximized(CONV3, digit_classifier)) == ""


# The pages in the simulator


def ended(at, kind):
    """The page after the work of this kind has ended."""
    names = [name for name in at.session_state._state._state.filtered_state if f"job.{kind}." in name]
    assert len(names) == 1
    assert not at.session_state[names[0]].wait(240).error
    return run(at)


def maximise(at):
    """Click the button that starts the runs, and wait for them."""
    (start,) = [button for button in at.button if button.label.startswith("Maximise with")]
    run(start.click())
    return ended(at, "code-space")


def test_code_space_page_runs_on_request_and_judges_on_request():
    at = opened("code-space", network="mnist-classifier", generator="gan-mnist", runs="4")
    assert not any("job." in name for name in at.session_state._state._state.filtered_state)
    maximise(at)
    assert not at.warning
    assert any("4 of 4 runs reached 0.99" in text.value for text in at.markdown)
    assert any("CodeSpaceAM(classifier, generator, prior='shell')" in block.value for block in at.code)
    assert at.query_params == {
        "network": "mnist-classifier", "generator": "gan-mnist", "runs": "4", "until": "probability",
    }  # fmt: skip
    run(widget(at, "segmented_control", "explain").set_value("neuron"))
    # Other settings wait for a click.
    assert not any("runs reached" in text.value for text in at.markdown)
    assert at.query_params["explain"] == "neuron"


def test_code_space_page_tells_how_far_runs_came_that_fell_short():
    at = opened("code-space", network="mnist-classifier", generator="pixels", runs="2", steps="2", until="probability")
    maximise(at)
    assert [warning.value.partition(",")[0] for warning in at.warning] == ["2 of 2 runs did not reach 0.99 in 2 steps"]


def test_code_space_link_with_nonsense_gets_sentences():
    nonsense = {"generator": "<b>", "prior": "no", "runs": "0", "steps": "9999", "seed": "-1", "stop_at": "7"}
    at = opened("code-space", network="mnist-classifier", target="77", **nonsense)
    assert at.warning[0].value.count("The link's") == len(nonsense)
    assert "no target 77" in at.warning[0].value
    at = opened("code-space", network="mnist-classifier", explain="neuron", layer="body.conv9", neuron="1.2.3")
    assert "`body.conv9`" in at.warning[0].value


def test_unit_goes_along_between_pages():
    at = opened("deconvnet", network="mnist-classifier", image="digit-3", layer="body.conv2", neuron="5.6.7")
    turn_to(at, "code-space")
    run(at)
    run(widget(at, "segmented_control", "explain").set_value("neuron"))
    assert at.query_params["neuron"] == "5.6.7"
    assert any("body.conv2, channel 5, row 6, column 7" in text.value for text in at.subheader)


def test_invariance_page_measures_on_request_only():
    at = opened(
        "invariance", network="mnist-classifier", generator="gan-mnist", count="100", layer="body.conv2", neuron="3.7.7"
    )
    assert not at.warning
    assert [heading.value[:2] for heading in at.subheader] == ["A.", "B.", "C."]
    run(at.button[0].click())
    ended(at, "invariance-A")
    assert any("The chosen unit, conv2 3" in text.value for text in at.markdown)
    at = opened("invariance", network="all-cnn-c", generator="pixels", data="cifar10", count="2")
    assert "less than 50" in at.warning[0].value
    assert not at.info
    assert at.session_state["attribute.generator"] == "dcgan-cifar10"


# The Invariance page's work


@pytest.mark.filterwarnings("ignore:.* did not reach stop_at")
def test_program_gives_the_sets_of_a_network_that_normalises_its_input(tmp_path, monkeypatch):
    subject = offered_networks.open_network("model-c")
    for module in (figure_findings, units):  # the page's, and the program's: each layer begins with many random codes
        monkeypatch.setattr(module, "layers_with_units", lambda *_: ["features.conv3"])
    settings = Settings(network="model-c", runs=2, ascent=2, count=50, layer="features.conv3")
    settings = figure_questions.with_unit(settings, subject, figure_questions.layers_of(subject))
    question = figure_questions.question_of("C", settings, subject, "crops")
    assert question.generator == "dcgan-cifar10"
    view = Job(lambda task: figure_findings.measure(task, question, subject)).wait(300)
    assert view.completed, view.error
    program = figure_programs.program(question, subject).replace("figure.show()", "")
    states = executed(program, tmp_path, monkeypatch)["states"]
    for ours, theirs in zip(view.result.states["trained"], states["trained"], strict=True):
        assert (ours.layer, ours.unit) == (theirs.layer, theirs.unit)
        assert ours.responses == pytest.approx(theirs.responses, rel=1e-3, abs=1e-3)
        assert ours.random_responses == pytest.approx(theirs.random_responses, rel=1e-3, abs=1e-3)
        assert ours.branches == theirs.branches
    assert sum(len(found.branches) for found in view.result.states["trained"]) > 0
    assert re.search(r"barrier \d\.\d\d (within a branch|between branches)", figure_reports.statement(view.result))
    with np.load(io.BytesIO(figure_reports.npz(view.result))) as file:
        assert [name for name in file.files if name.endswith(".branches")]


@pytest.mark.parametrize("figure", ["A", slow("B"), slow("C")])
def test_program_gives_the_figure_on_screen(figure, digit_classifier, tmp_path, monkeypatch):
    settings = replace(DIGITS, runs=3, ascent=4, count=60, layer="body.conv2")
    settings = figure_questions.with_unit(settings, digit_classifier, figure_questions.layers_of(digit_classifier))
    question = figure_questions.question_of(figure, settings, digit_classifier, "digits")
    view = Job(lambda task: figure_findings.measure(task, question, digit_classifier)).wait(300)
    assert view.completed, view.error
    findings = view.result
    program = figure_programs.program(question, digit_classifier).replace("figure.show()", "")
    states = executed(program, tmp_path, monkeypatch)["states"]
    assert states.keys() == findings.states.keys() == {"trained", "untrained"}
    if figure == "A":
        assert states == findings.states
    elif figure == "B":
        for ours, theirs in zip(findings.states["trained"], states["trained"], strict=True):
            assert (ours.layer, ours.unit) == (theirs.layer, theirs.unit)
            assert ours.responses == pytest.approx(theirs.responses, rel=1e-3, abs=1e-3)
    else:
        assert [found.unit for found in findings.states["trained"]] == [found.unit for found in states["trained"]]
        assert findings.solutions is not None
    panels = figure_reports.panels(findings)
    assert len(panels) == {"A": 4, "B": 1, "C": 3}[figure]
    assert all(panel.data for panel in panels)
    assert sum(len(panel.data) for panel in panels) == len(figure_reports.figure(findings).data)
    assert "rained" in figure_reports.statement(findings)
    with np.load(io.BytesIO(figure_reports.npz(findings))) as file:
        assert any(name.startswith("untrained.body.conv2") for name in file.files)
        assert json.loads(str(file["settings"]))["count"] == 60


def test_images_to_measure_with(digit_classifier):
    images, labels = image_sets.inputs("digits", digit_classifier.model, 20)
    assert images.shape == (20, 1, 28, 28)
    assert labels is not None
    assert image_sets.inputs("generated", digit_classifier.model, 5)[0].shape == (5, 1, 28, 28)
    squares, labels = image_sets.inputs("crops", offered_networks.open_network("all-cnn-c").model, 12)
    assert squares.shape == (12, 3, 32, 32)
    assert labels is None
    with pytest.raises(ValueError, match="no set of images 'x'"):
        image_sets.inputs("x", digit_classifier.model, 5)
    with pytest.raises(ValueError, match="no folder"):
        image_sets.add_folder("nowhere")


# In a browser


def downloaded(page, kind):
    with page.expect_download() as download:
        page.get_by_role("button", name=f"{kind} of the runs", exact=True).click()
    return Path(download.value.path()).read_bytes()


@pytest.mark.timeout(1200)
def test_a_run_that_is_stopped_keeps_its_results(page, address):
    page.goto(
        f"{address}code-space?network=mnist-classifier&runs=64&explain=neuron&layer=body.conv3&neuron=7.3.3&steps=500"
    )
    # No run starts unasked. Few runs would end before the button is pressed.
    settle(page)
    assert page.get_by_role("button", name="Stop", exact=True).count() == 0
    page.get_by_role("button", name="Maximise with").click()
    page.locator("[class*='st-key-attribute-stop'] button").wait_for()
    page.get_by_text(" of at most 500").first.wait_for()
    page.locator("[class*='st-key-attribute-stop'] button").click()
    page.get_by_text("Stopped after").wait_for()
    settle(page)
    with np.load(io.BytesIO(downloaded(page, "NPZ"))) as file:
        assert file["images"].shape == (64, 1, 28, 28)
        assert len(file["scores"]) < 500


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_maximisation_live(page, address, tmp_path, monkeypatch):
    page.goto(f"{address}code-space?network=mnist-classifier&generator=gan-mnist&target=3&runs=6")
    settle(page)
    page.get_by_role("button", name="Maximise with").click()
    page.get_by_text("Reproduce this view").click()
    page.get_by_text("6 of 6 runs reached 0.99 in").wait_for()
    # The run that follows work is no step in the history, whatever address it was started from.
    settle(page)
    assert "target=3" in page.url
    program = page.locator("[data-testid=stCode]").nth(1).inner_text()
    made = executed(program, tmp_path, monkeypatch)["result"].images.numpy()
    with np.load(io.BytesIO(downloaded(page, "NPZ"))) as file:
        np.testing.assert_allclose(file["images"], made, atol=1e-4)
    assert downloaded(page, "GIF").startswith(b"GIF89a")
    assert downloaded(page, "PNG").startswith(b"\x89PNG")

    page.get_by_role("button", name="Judge").click()
    page.get_by_text("The judge is a network").wait_for()
    choose(page, "Class", "8 (8)", url="target=8")
    page.get_by_role("button", name="Maximise with").click()
    page.get_by_text("The last sixteen runs").wait_for()
    until(page, page.get_by_role("link", name="Attribute this class").click, url="/attribute?")
    assert "target=8" in page.url


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_invariance_live(page, address):
    page.goto(f"{address}invariance?network=mnist-classifier&generator=gan-mnist&runs=2&ascent=2&count=50")
    settle(page)
    for figure in figure_questions.FIGURES:
        page.get_by_role("button", name=f"Measure {figure}").click()
        page.get_by_text(f"Program for {figure}").wait_for()
    settle(page)
