"""The tables and the figure agree with the stored results."""

import pytest
import report

from plugin.measuring import stored_results
from plugin.measuring.cases import Row
from plugin.measuring.stored_results import Results

PAGE = f"# Title\n\n{report._BEGIN}\nold\n{report._END}\n\nEnd.\n"


@pytest.fixture
def found():
    """Times that nobody measured."""
    found = Results(stored_results.machine_facts("cpu"))
    for implementation, seconds in (
        ("ours", (1.0, 1.2, 1.4)),
        ("captum", (2.0, 2.0, 2.0)),
        ("zennit", (2.0, 3.0, 4.0)),
    ):
        row = Row("vgg16", "lrp-epsilon", implementation)
        found.put(row, "abc", floor_seconds=(1.0,) * 3, call_seconds=seconds, peak_bytes=21, floor_peak_bytes=20)
    found.put(Row("vit_b_16", "lrp-epsilon", "captum"), "abc", error="it has no rule")
    found.put(Row("dcgan", "gan-step", "ours", 128), "abc", floor_seconds=(1.0,), call_seconds=(1.25,))
    return found


def test_tables_show_hits_and_misses(found):
    lines = report.table(found).splitlines()
    assert "| LRP epsilon | 1 | x baseline | 1.1 | **miss** 1.200 [1.100, 1.300] |  |  |  |" in lines
    assert "| LRP epsilon | 1 | memory, x baseline | 1.1 | 1.050 |  |  |  |" in lines
    short = report.summary(found)
    assert "| LRP epsilon | x baseline | 1.1 | 1.20 to 1.20 | 0 of 1 |" in short
    assert "| LRP epsilon | x zennit | 0.5 | 0.40 to 0.40 | 1 of 1 |" in short
    assert "| LRP epsilon, ten targets | x baseline | 1 | not measured | - |" in short
    assert "| VGG-16, LRP epsilon | 1.20 | 2.00 | 3.00 |  |  |" in report.brief(found)
    assert "it has no rule: Captum ViT-B/16 LRP epsilon" in report.remarks(found)
    assert "| gan step | dcgan | this package | 128 | 1.250 [1.250, 1.250] |" in report.others(found)
    assert report.absolute(found) == ""
    assert "| LRP `epsilon` | 1.20 to 1.20 | 1.05 to 1.05 |" in report.costs([found])
    found.machine["gpu"] = "A GPU"
    assert "1200.000 [1100.000, 1300.000] |" in report.absolute(found)


def test_pages_have_the_tables_of_the_stored_results():
    stored = {stem: Results.read(path) for stem, path in stored_results.stored(stored_results.FOLDER).items()}
    for path, text in report.written(stored).items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} is older than the stored results: make report"


def test_report_replaces_what_is_between_the_markers(found, tmp_path, monkeypatch):
    readme, page, choice = tmp_path / "README.md", tmp_path / "benchmarks.md", tmp_path / "which-method.md"
    compiled, lrp = tmp_path / "accelerate.md", tmp_path / "lrp.md"
    pages = {"README": readme, "PAGE": page, "CHOICE": choice, "COMPILED": compiled, "LRP": lrp}
    for name, path in (pages | {"FIGURES": tmp_path}).items():
        monkeypatch.setattr(report, name, path)
    compiled.write_text(PAGE)
    lrp.write_text(PAGE)
    readme.write_text(PAGE)
    page.write_text(PAGE)
    choice.write_text(PAGE)
    assert report.main(tmp_path) == 1
    assert readme.read_text() == PAGE
    found.write(tmp_path / "0.1.0" / "machine-cpu.json")
    assert report.main(tmp_path) == 0
    written = [readme.read_text(), page.read_text(), (tmp_path / "benchmarks-machine-cpu.svg").read_text()]
    assert "old" not in written[0]
    assert written[0].startswith("# Title")
    assert written[0].endswith("End.\n")
    assert "(figures/benchmarks-machine-cpu.svg)" in written[1]
    assert "VGG-16, batch 1" in written[2]
    assert "| LRP `epsilon` | 1.20 to 1.20 | 1.05 to 1.05 |" in choice.read_text()
    assert "| VGG-16, LRP epsilon | 1.20 |" in compiled.read_text()
    assert "| VGG-16, LRP epsilon | 1.20 |" in lrp.read_text()
    assert report.main(tmp_path) == 0
    assert written == [readme.read_text(), page.read_text(), (tmp_path / "benchmarks-machine-cpu.svg").read_text()]
    with pytest.raises(ValueError, match="needs one line"):
        report.replaced("no markers", "text")
