"""How long attributions take and how much memory they need: always as a multiple, never as a bare number.

The measure is the floor: one forward pass and one gradient at the input of the same network, its parameters frozen. No
method that goes back through the network can be faster. Floor and measured call take turns, so that whatever else the
machine does meets both; what is reported is the median of the quotients with their quartiles.

`cases` says what is measured, `timing` and `memory` how, `results` keeps it, and `targets` says what must be reached.
See docs/benchmarks.md.
"""
