"""Activation maximisation in the code space of a generator."""
