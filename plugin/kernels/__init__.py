"""Arithmetic on tensors. Only this package may ask whether operations are being recorded."""
