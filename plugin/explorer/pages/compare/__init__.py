"""Two views and the difference of their maps."""
