"""The methods and the rules of LRP that can be chosen by name, as values that run and print as Python."""
