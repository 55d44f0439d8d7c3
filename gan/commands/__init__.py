"""The commands of `python -m gan`: each module adds its arguments to a parser and runs."""
