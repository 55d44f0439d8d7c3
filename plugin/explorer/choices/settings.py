"""The state of a page as one frozen value, and its form in the URL. `Settings` declares each setting once.

A value of a link that cannot be used is replaced by the default, with one sentence on it.
"""

from collections.abc import Collection, Mapping
from dataclasses import Field, dataclass, field, fields, replace
from typing import Any

from plugin.devices import choose_device
from plugin.measuring.measured_networks import NAMES as MEASURED
from plugin.rules import SWITCH_FREE
from plugin.rules.presets import PRESETS

from ..inputs.image_sets import LABELS as IMAGE_SETS
from ..inputs.unit_maximizers import GENERATORS, SPACES
from ..server.kept_files import FOLDER_NAME
from ..server.kept_files import NAME as FILE_NAME
from ..server.untrusted_text import quoted
from . import links
from .links import Form
from .offered_methods import METHODS, OF_DATA_SETS, OF_PICTURES
from .offered_rules import NUMBERS, RULES, numbers_of

# Pictures that are no samples.
UPLOAD, DRAWING = "upload", "drawing"
# Choices of a setting, with their labels.
EXPLAIN = {"class": "Class", "neuron": "Neuron"}
VIEWS = {
    "sum": "Sum of channels",
    "positive": "Sum, positive part",
    "negative": "Sum, negative part",
    "colour": "Colour picture",
    "red": "Red channel",
    "green": "Green channel",
    "blue": "Blue channel",
}
SCALES = {"own": "Own", "shared": "Shared"}
FRAMES = {"unit": "Part the unit sees", "whole": "Whole picture"}
# Collections of pictures, the filters of the pictures that are shown, and their orders.
SAMPLES, FOLDER = "samples", "folder"
COLLECTIONS = {SAMPLES: "Samples", FOLDER: "Folder", UPLOAD: "Uploads", **IMAGE_SETS}
CORRECTNESS = {"all": "All", "wrong": "Wrong only"}
ORDERS = {"name": "Name", "least": "Least confident first", "most": "Most confident first"}
UNIT_ORDERS = {"number": "Number", "response": "Strongest response", "selective": "Selectivity for a class"}
DRAWN_BY = {**GENERATORS, **SPACES}
SPANS = {"position": "Itself", "channel": "Mean of its channel", "direction": "All channels, as in the picture"}
UNTIL = {"probability": "a probability", "data": "the level of real images", "steps": "the last step"}
PRIORS = ("shell", "gaussian", "box", "ppgn")
MOST_RUNS, MOST_STEPS = 64, 500
LEAST_IMAGES, MOST_IMAGES = 50, 2000
MOST_RANDOM_LAYERS = 9
# The steps of the guided tour.
TOUR = (
    "relu-rules", "switches", "without-a-picture", "guided-backprop", "conservation", "code-space", "invariance",
)  # fmt: skip


_FILE = links.matching(FILE_NAME, "the name of a file")
_FOLDER = links.matching(FOLDER_NAME, "the name of a folder")
_RESULTS = links.matching(r"[a-z0-9-]{1,80}", "the name of results")
# For pixels from 0 to 1. Networks that were trained on values up to 255 have small deviations.
MEAN, STD = links.numbers(3, 0, 1), links.numbers(3, 0.001, 10)
MOST_PIXELS = 1024
# The least and the largest values of the numbers of LRP's rules.
BOUNDS = {"epsilon": (0.0, 1000.0), "gamma": (0.0, 1000.0), "alpha": (1.0, 100.0)}
# The weights of the user's own, and how they are used.
OWN_WEIGHTS = (
    "checkpoint", "checkpoint_name", "class_names", "class_names_name", "resize", "crop", "mean", "std",
)  # fmt: skip
# The kinds of settings that B of a comparison can have of its own, with their labels.
DIFFERENCES = {"method": "Method", "target": "Class", "network": "Network or weights", "image": "Picture"}
# The settings of each kind; the one of the same name always has a value.
OWN_OF_B = {
    "method": ("method",),
    "target": ("target",),
    "network": ("network", *OWN_WEIGHTS),
    "image": ("image", "picture", "picture_name"),
}
# The prefix of the names of B's settings, in links and in the keys of widgets.
B = "b."
# The network and the picture: every page has them, also where it shows something else.
INPUTS = ("network", *OWN_WEIGHTS, "image", "picture", "picture_name", "drawing")
# The choice and the order of units, and of pictures of a collection: a new choice begins at the first page of the grid.
CHOICE_OF_UNITS = ("layer", "unit_order", "selective_for")
CHOICE_OF_PICTURES = ("pictures", "folder", "correctness", "labelled", "predicted", "confidence", "order")


def setting(default: Any, form: Form | None, explanation: str) -> Any:
    """Declare a setting.

    Args:
        default: its value in an empty link.
        form: its form in a link; None is one of the names that `from_query` gets.
        explanation: its meaning; becomes part of the class's docstring.
    """
    return field(default=default, metadata={"form": form, "explanation": explanation})


@dataclass(frozen=True)
class Settings:
    """The state of the pages: the settings that they share, and those of each page."""

    network: str = setting("all-cnn-c", None, "a name of `offered_networks.choices`")
    checkpoint: str = setting(
        "", links.DIGEST, "the start of the SHA-256 of the file with its weights; empty if it has its own"
    )
    checkpoint_name: str = setting("", _FILE, "the name of that file")
    class_names: str = setting("", links.DIGEST, "the start of the SHA-256 of a file with the names of its classes")
    class_names_name: str = setting("", _FILE, "the name of that file")
    resize: int = setting(
        0, links.whole_number(MOST_PIXELS, 1), "the length of its pictures' shorter side; 0 is the network's own"
    )
    crop: int = setting(
        0, links.whole_number(MOST_PIXELS, 1), "the side of the central square that it sees; 0 as above"
    )
    mean: tuple[float, ...] = setting((), MEAN, "the means of red, green and blue; empty is the network's own")
    std: tuple[float, ...] = setting((), STD, "their standard deviations")
    image: str = setting("cat", None, "the name of a sample, `UPLOAD` or `DRAWING`")
    picture: str = setting("", links.DIGEST, "the start of an upload's SHA-256, by which a link names its file")
    picture_name: str = setting("", _FILE, "the name of the upload")
    drawing: str = setting("", links.DRAWING, "a drawing, as `drawn_digit.encode` writes it; empty for a blank sheet")
    device: str = setting("", links.DEVICE, "the device that computes; empty is the best one of this machine")
    methods: tuple[str, ...] = setting(
        ("gradient", "deconvnet", "guided-backprop"),
        links.some_of(OF_PICTURES, "method"),
        "keys of `METHODS`, in the order of the columns",
    )
    explain: str = setting("class", links.one_of(EXPLAIN), "the logit of a class, or one neuron of a layer")
    target: int | None = setting(None, links.whole_number(), "a class; None is the most probable one")
    contrast: int | None = setting(
        None, links.whole_number(), "a second class: then the difference of the two logits is explained"
    )
    layer: str = setting("", links.LAYER, "a module's name, for a neuron and for methods that look at a layer")
    neuron: tuple[int, ...] = setting(
        (), links.NEURON, "index into the layer's output without its batch dimension; empty is the most active one"
    )
    view: str = setting("sum", links.one_of(VIEWS), "how the channels of a map become a picture")
    percentile: float = setting(99.0, links.number(50, 100), "the percentile at which the colours end")
    opacity: float = setting(1.0, links.number(0, 1), "the opacity of the maps over the picture")
    scale: str = setting("own", links.one_of(SCALES), "the colour scale: one for each map, or one for all")
    randomise: int = setting(
        0, links.whole_number(MOST_RANDOM_LAYERS), "the number of last layers that are made random to check the maps"
    )
    unpooling: str = setting(
        "center", links.one_of(SWITCH_FREE), "where max-pooling hands the signal of a reconstruction without a picture"
    )
    frame: str = setting("unit", links.one_of(FRAMES), "the part of a reconstruction that is shown")
    preset: str = setting("epsilon_plus_flat", links.one_of(PRESETS), "the preset of LRP's rules on its own page")
    rules: tuple[tuple[str, str], ...] = setting(
        (), links.by_layer(RULES, "rule"), "pairs of a layer and a key of `RULES` that replace the preset's rule there"
    )
    epsilon: float = setting(
        NUMBERS["epsilon"], links.exact_number(*BOUNDS["epsilon"]), "added to denominators by the rule epsilon there"
    )
    gamma: float = setting(
        NUMBERS["gamma"], links.exact_number(*BOUNDS["gamma"]), "the favour of positive parts by the rule gamma there"
    )
    alpha: float = setting(
        NUMBERS["alpha"], links.exact_number(*BOUNDS["alpha"]), "the factor of positive parts there; beta is alpha - 1"
    )
    method: str = setting("gradient", links.one_of(OF_PICTURES), "a key of `METHODS`, where one method is shown")
    differs: str = setting(
        "method", links.one_of(DIFFERENCES), "the kind of B's own settings in a comparison; the rest is A's"
    )
    b: tuple[tuple[str, Any], ...] = setting(
        (), None, "all settings of `OWN_OF_B[differs]` with their values; empty leaves the choice to the page"
    )
    results: str = setting("", _RESULTS, "the machine of stored results; empty: the first")
    results_beside: str = setting("", _RESULTS, "a second machine, whose results are shown beside; empty: none")
    measured: str = setting("vgg16", links.one_of(MEASURED), "the network whose results are shown")
    batch: int = setting(1, links.whole_number(), "images per call there")
    generator: str = setting("dcgan-mnist", links.one_of(DRAWN_BY), "the generator or space of the maximised images")
    span: str = setting(
        "position", links.one_of(SPANS), "the maximised units: a neuron, its channel, or a direction of all"
    )
    prior: str = setting("shell", links.one_of(PRIORS), "the prior of the codes")
    runs: int = setting(16, links.whole_number(MOST_RUNS, 1), "the number of runs of the maximisation")
    seed: int = setting(0, links.whole_number(), "the seed of the first run; the next runs have the next numbers")
    steps: int = setting(200, links.whole_number(MOST_STEPS, 1), "the most steps of a run")
    until: str = setting(
        "", links.one_of(UNTIL), "the end of a run; empty: the one that suits the generator and the unit"
    )
    stop_at: float = setting(0.99, links.number(0.01, 1), "the probability of a class at which a run ends")
    data: str = setting(
        "", links.one_of(IMAGE_SETS), "real images to measure and compare with; empty: those that suit the network"
    )
    count: int = setting(300, links.whole_number(MOST_IMAGES, LEAST_IMAGES), "the number of these images")
    ascent: int = setting(60, links.whole_number(MOST_STEPS, 1), "the steps of each run there")
    pictures: str = setting(SAMPLES, links.one_of(COLLECTIONS), "the collection of pictures")
    folder: str = setting("", links.DIGEST, "the start of the SHA-256 of a folder's list of names and sizes")
    folder_name: str = setting("", _FOLDER, "the name of that folder, without the folders that it lies in")
    correctness: str = setting("all", links.one_of(CORRECTNESS), "all pictures, or those whose prediction is wrong")
    labelled: int | None = setting(None, links.whole_number(), "the class of which pictures are shown, by their label")
    predicted: int | None = setting(None, links.whole_number(), "the same by their prediction")
    confidence: tuple[float, float] = setting(
        (0.0, 1.0), links.interval(0, 1), "the least and the largest probability of predictions that are shown"
    )
    order: str = setting("name", links.one_of(ORDERS), "the order of the pictures")
    sheet: int = setting(1, links.whole_number(least=1), "the page of the grid of pictures, from 1 on")
    unit_order: str = setting("number", links.one_of(UNIT_ORDERS), "the order of the units of a layer")
    selective_for: int | None = setting(
        None, links.whole_number(), "the class by which units are sorted; None takes the preferred class of each unit"
    )
    unit_sheet: int = setting(1, links.whole_number(least=1), "the page of the grid of units, from 1 on")
    whole: str = setting("guided-backprop", links.one_of(OF_DATA_SETS), "the method for the maps of a whole folder")
    step: str = setting(TOUR[0], links.one_of(TOUR), "the step of the guided tour")

    def to_query(self, page: Collection[str] | None = None) -> dict[str, str]:
        """The query parameters of a link to this state. Defaults are left out, so that links stay short.

        Args:
            page: the page's settings; only those that it uses now are written. None writes all settings.
        """
        names = None if page is None else self.used(page)
        written = {
            declared.name: _form(declared, ()).write(getattr(self, declared.name))
            for declared in fields(self)
            if declared.name != "b"
            and getattr(self, declared.name) != declared.default
            and (names is None or declared.name in names)
        }
        if names is None or "b" in names:
            written |= {
                B + declared.name: _form(declared, ()).write(value)
                for declared, value in ((_DECLARED[name], value) for name, value in self.b)
                if value != declared.default or declared.name == self.differs
            }
        return written

    @property
    def beside(self) -> "Settings":
        """The settings of B: those of A, except for B's own."""
        return replace(self, b=(), **dict(self.b))

    @property
    def runs_on(self) -> str:
        """The name of the device that computes."""
        return self.device or str(choose_device())

    def used(self, page: Collection[str]) -> set[str]:
        """The settings of a page on which it depends now: without a drawing, for example, there is none to name."""
        unused = {"picture", "picture_name"} if self.image != UPLOAD else set()
        if self.image != DRAWING:
            unused.add("drawing")
        if not self.checkpoint:
            unused |= {*OWN_WEIGHTS} - {"checkpoint"}
        if not self.class_names:
            unused.add("class_names_name")
        if self.unit_order != "selective":
            unused.add("selective_for")
        if self.pictures != FOLDER:
            unused |= {"folder", "folder_name", "whole"}
        if "whole" in page and ("whole" in unused or not METHODS[self.whole].needs_layer):
            unused.add("layer")
        if "explain" in page:
            unused |= {"target", "contrast"} if self.explain == "neuron" else {"neuron", "span"}
            if self.explain == "class" and not ("methods" in page and self.needs_layer):
                unused.add("layer")
        if "preset" in page:
            unused |= {*NUMBERS} - {*numbers_of(self.preset, self.rules)}
        if "until" in page:
            unused |= {"stop_at"} if self.until not in ("", "probability") else set()
            unused |= {"data", "count"} if self.until != "data" else set()
        return {*INPUTS, *page} - unused

    @property
    def needs_layer(self) -> bool:
        """Whether any of the maps needs a layer."""
        return self.explain == "neuron" or any(METHODS[key].needs_layer for key in self.methods)


_DECLARED = {declared.name: declared for declared in fields(Settings)}
Settings.__doc__ = "\n".join([
    str(Settings.__doc__), "", "Attributes:",
    *(f"    {declared.name}: {declared.metadata['explanation']}." for declared in fields(Settings)),
])  # fmt: skip


def from_query(
    query: Mapping[str, str], networks: Collection[str], images: Collection[str]
) -> tuple[Settings, list[str]]:
    """Read a link. Unknown parameters are ignored.

    Args:
        query: the parameters, each once.
        networks: the names that are accepted as a network.
        images: the names of the sample images.

    Returns:
        The settings, and one sentence for each value that could not be used.
    """
    # There is one sheet to draw on, which is A's.
    names = {"network": networks, "image": [*images, UPLOAD, DRAWING], f"{B}image": [*images, UPLOAD]}
    notes: list[str] = []

    def read(known: Collection[str], prefix: str = "") -> dict[str, Any]:
        values: dict[str, Any] = {}
        for name in known:
            if (text := query.get(prefix + name)) is None:
                continue
            try:
                values[name] = _form(_DECLARED[name], names.get(prefix + name, names.get(name, ()))).read(text)
            except ValueError as reason:
                notes.append(f"The link's {prefix}{name} {quoted(text)} {reason}; the default is used.")
        return values

    settings = replace(Settings(), **read([name for name in _DECLARED if name != "b"]))
    group = OWN_OF_B[settings.differs]
    own = read(group, B)
    if settings.differs not in own:
        return settings, notes
    return replace(settings, b=tuple((name, own.get(name, _DECLARED[name].default)) for name in group)), notes


def _form(declared: Field[Any], names: Collection[str]) -> Form:
    """The form of a setting in a link; `names` are the accepted values of a setting that is declared without a form."""
    form: Form | None = declared.metadata["form"]
    if form is not None:
        return form
    return links.network(names) if declared.name == "network" else links.one_of(names)
