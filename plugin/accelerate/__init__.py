"""Attributions without Python: compiled, captured in a CUDA graph, or exported as a separate program.

An attribution, backward pass included, is a function of tensors. It is recorded once as a flat graph of ATen
operations, which is then compiled (`compile`), written to a file that needs neither this package nor autograd
(`export`), or differentiated (`differentiable`). See docs/accelerate.md and docs/lrp.md.
"""

from .compiled import MODES, CompiledAttribution, compile
from .differentiating import differentiable
from .exporting import export
from .graphs import PRECISIONS

__all__ = ["MODES", "PRECISIONS", "CompiledAttribution", "compile", "differentiable", "export"]
