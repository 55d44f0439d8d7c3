"""The findings on a folder, in words, in a table and as a file."""

import csv as csv_format
import io

from plugin.datasets import Report

from ...inputs.folder_predictions import FolderPredictions, KnownPictures
from ...server.kept_files import folder_link_name
from ...server.untrusted_text import escaped, quoted

_LEADS_TO_FORMULAS = ("=", "+", "-", "@", "\t", "\r")


def summary(predictions: FolderPredictions, findings: KnownPictures) -> str:
    """The numbers of pictures, of predictions and of right predictions, as Markdown."""
    collection = predictions.collection
    files = len(findings.broken) + len(collection.skipped)
    parts = [f"**{len(predictions)} pictures** in {quoted(collection.name)}", tally(findings)]
    if files:
        parts.append(f"{without_prediction(files)}, listed below")
    return "; ".join(parts) + "."


def without_prediction(files: int) -> str:
    """The number of files without a prediction, in words."""
    return f"{files} {'files' if files > 1 else 'file'} without a prediction"


def tally(findings: KnownPictures) -> str:
    """The number of predictions, and of right ones among the pictures with a label."""
    judged, wrong = int(findings.judged.sum()), int(findings.wrong.sum())
    text = f"{int(findings.known.sum())} predicted"
    right = f"{judged - wrong} of the {judged} with a label are right"
    return f"{text}; {right} ({1 - wrong / judged:.1%})" if judged else text


def broken(predictions: FolderPredictions, findings: KnownPictures) -> list[dict[str, str]]:
    """The files without a prediction, each with the reason."""
    records, skipped = predictions.collection.records, predictions.collection.skipped
    reasons = {records[row].id: reason for row, reason in sorted(findings.broken.items())} | skipped
    return [{"File": name, "Reason": reason} for name, reason in reasons.items()]


def csv(predictions: FolderPredictions, findings: KnownPictures) -> bytes:
    """A line for each picture: its file, label, prediction, confidence, and the error in place of a prediction."""
    classes = predictions.subject.model.classes
    text = io.StringIO()
    writer = csv_format.writer(text)
    writer.writerow(["file", "label", "prediction", "confidence", "error"])
    for row, record in enumerate(predictions.collection.records):
        label, predicted = int(findings.labels[row]), int(findings.predicted[row])
        confidence = f"{findings.confidence[row]:.6f}" if predicted >= 0 else ""
        names = [classes[index] if index >= 0 else "" for index in (label, predicted)]
        writer.writerow(map(_inert, [record.id, *names, confidence, findings.broken.get(row, "")]))
    return text.getvalue().encode()


def file_name(predictions: FolderPredictions) -> str:
    """The name of the CSV file."""
    collection, network = predictions.collection, folder_link_name(predictions.subject.name)
    return f"{network}-{folder_link_name(collection.name)}-{collection.short}.csv".replace(" ", "-")


def made(report: Report) -> str:
    """The number of maps that a run has made, and their path, as Markdown."""
    text = f"{report.maps} maps in {escaped(str(report.path))}"
    skipped = len(report.skipped)
    return (
        f"{text}; {skipped} {'files have' if skipped > 1 else 'file has'} none, see `error` there."
        if skipped
        else f"{text}."
    )


def _inert(text: str) -> str:
    """A text that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(_LEADS_TO_FORMULAS) else text
