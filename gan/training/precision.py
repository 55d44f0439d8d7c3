"""Mixed precision in bfloat16, only on devices that support it."""

import torch


def computes_in_bfloat16() -> bool:
    """Whether this CPU has instructions for products of bfloat16.

    Without them they are emulated: a step of the shipped DCGAN then takes about 17 times as long as in float32.
    """
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def mixed_precision(wanted: bool = True, device: torch.device | None = None) -> torch.autocast:
    """Convolutions and matrix products in bfloat16, if that is wanted and the device can; else all in float32.

    Args:
        wanted: False for float32.
        device: default the CPU.
    """
    kind = "cpu" if device is None else device.type
    able = {"cpu": computes_in_bfloat16, "cuda": torch.cuda.is_bf16_supported}.get(kind, lambda: False)
    return torch.autocast(kind, torch.bfloat16, enabled=wanted and able())
