"""All that can be chosen: the settings of a page and their form in a link, methods and rules as values that print as
Python."""
