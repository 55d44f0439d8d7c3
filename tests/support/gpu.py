"""The GPU of the tests: CUDA's, else the simulated one if the process has it (`support.simulated_device`)."""

import pytest
import torch

GPU = "cuda" if torch.cuda.is_available() else "simulated" if hasattr(torch, "simulated") else ""
on_gpu = pytest.mark.skipif(not GPU, reason="no GPU")
on_cuda = pytest.mark.skipif(GPU != "cuda", reason="no CUDA device")
