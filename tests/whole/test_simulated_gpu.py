"""Every way to a GPU, on one that is simulated: in a process of its own, which chooses it by default.

Whatever computes with tensors of two devices, or hands a GPU's to NumPy, fails there as it does on a GPU.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support import simulated_device

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
# Maps, their kin and their programs; the explorer's pages; maximisation, training and judging; the studies; data sets.
CHOSEN = [
    "whole/test_cuda.py",
    "explorer/test_pages.py::test_first_view_shows_three_methods_side_by_side",
    "explorer/test_pages.py::test_neuron_of_a_layer",
    "explorer/test_pages.py::test_sanity_check_on_request_warns",
    "explorer/test_pages.py::test_digit_classifier_takes_digits_and_drawings",
    "explorer/test_pages.py::test_deconvnet_page_compares_the_twins",
    "explorer/test_pages.py::test_lrp_page_follows_preset_class_and_rules",
    "explorer/test_units_page.py::test_samples_are_looked_at_unasked_and_a_unit_is_chosen_by_its_button",
    "explorer/test_badges.py::test_curves_are_drawn_when_a_badge_is_opened",
    "explorer/test_code_space.py::test_codes_of_coloured_pictures[unit1]",
    "explorer/test_compare.py::test_own_files_are_a_and_b",
    "gans/test_device.py",
    "gans/test_commands.py",
    "experiments/test_deconvnet_experiment.py",
    "experiments/test_faithfulness.py",
    "experiments/test_sanity.py",
    "experiments/test_unit_survey.py",
]
# The fallback copies the weights of the largest networks for each operation; exported programs run as recorded ones do.
LEFT_OUT = "not (test_cuda and (resnet18 or swin_t or efficientnet_b0 or densenet121 or exported_programs))"


@pytest.mark.timeout(900)
@pytest.mark.skipif(not simulated_device.COMPILER, reason="no C++ compiler")
@pytest.mark.skipif(torch.__version__ < "2.14", reason="devices of one's own have another interface")
def test_what_computes_on_a_gpu_computes_on_a_simulated_one(tmp_path: Path) -> None:
    library = simulated_device.compiled(tmp_path)
    tests = [str(TESTS / name) for name in CHOSEN]
    plugin = ["-p", "support.simulated_device", f"--simulated-device={library}", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", *plugin, "--tb=short", "-k", LEFT_OUT, *tests]
    paths = os.pathsep.join([str(TESTS), str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    found = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env={**environment, "PYTHONPATH": paths}, timeout=850
    )
    assert found.returncode == 0, found.stdout[-5000:]
    assert "passed" in found.stdout
