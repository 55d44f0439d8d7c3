"""Arithmetic on tensors, and nothing else; alone may ask whether it is being recorded."""
