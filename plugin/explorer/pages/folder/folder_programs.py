"""A program that finds the predictions on the Folder page again, and chooses the same pictures."""

from ...choices.settings import Settings
from ...inputs.folder_predictions import FolderPredictions
from ...maps import collection_programs
from ...maps.collection_programs import DECODED

_IMPORTS = ("from plugin.datasets.labels import labels_where_known", "from plugin.heads import probabilities")


def program(settings: Settings, predictions: FolderPredictions) -> str:
    """A program whose `found` are the labels (-1 where there is none), predictions and confidences of the pictures that
    can be read, by their number, and whose `shown` are the numbers of those that the page chooses, in its order."""
    subject = predictions.subject
    inputs = f"model.preprocess(picture){collection_programs.there(subject)}"
    return "\n".join(
        [
            *collection_programs.header(predictions, (), _IMPORTS),
            f"classes = {_classes(subject.model.classes)}",
            "labels = labels_where_known(collection.records, classes)",
            "",
            "found = {}",
            "for number, record in enumerate(collection.records):",
            "    try:",
            f"        picture = {DECODED}",
            "    except (OSError, ValueError):  # it cannot be read",
            "        continue",
            "    with torch.no_grad():",
            f"        outputs = model.network({inputs}).float()",
            f"    confidence, predicted = probabilities({subject.head!r}, outputs)[0].max(0)",
            "    found[number] = labels[number], int(predicted), float(confidence)",
            "",
            "judged = [label == predicted for label, predicted, _ in found.values() if label >= 0]",
            'print(f"{sum(judged)} of the {len(judged)} with a label are right")',
            *_choice(settings),
            "for number in shown:",
            "    label, predicted, confidence = found[number]",
            '    label = classes[label] if label >= 0 else ""',
            "    print(collection.records[number].id, label, classes[predicted], round(confidence, 6), sep=', ')",
            "",
        ]
    )


def _classes(names: tuple[str, ...]) -> str:
    """The names of the classes; a network without any has numbers in their place."""
    numbered = tuple(f"class {index}" for index in range(len(names)))
    return f'[f"class {{index}}" for index in range({len(names)})]' if names == numbered else "model.classes"


def _choice(settings: Settings) -> list[str]:
    """The lines that choose pictures and bring them into order, as `picture_choice.chosen_rows` does."""
    conditions = []
    if settings.correctness == "wrong":
        conditions.append("0 <= label != predicted")
    if settings.labelled is not None:
        conditions.append(f"label == {settings.labelled}")
    if settings.predicted is not None:
        conditions.append(f"predicted == {settings.predicted}")
    low, high = settings.confidence
    if (low, high) != Settings.confidence:
        conditions.append(f"{low} <= round(confidence, 6) <= {high}")
    if not conditions:
        chosen = ["shown = [*found]"]
    else:
        condition = " and ".join(conditions)
        chosen = [f"shown = [number for number, (label, predicted, confidence) in found.items() if {condition}]"]
    if settings.order != "name":
        reverse = ", reverse=True" if settings.order == "most" else ""
        chosen.append(f"shown.sort(key=lambda number: found[number][2]{reverse})")
    return chosen
