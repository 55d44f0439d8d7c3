"""Time and memory, stored and measured here."""
