"""The time and the memory of attributions: always as a multiple, never as a bare number.

The measure is the floor: one forward pass and one gradient at the input of the same network, its parameters frozen. No
method that goes back through the network can be faster. Floor and measured call take turns, so that any other load of
the machine affects both. The reported value is the median of the quotients with their quartiles.

`cases` lists the measurements, `timing` and `peak_memory` carry them out, `stored_results` stores them, and
`required_values` holds the required values.
See docs/benchmarks.md.
"""
