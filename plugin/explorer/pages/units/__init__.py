"""The units of a layer, and the pictures that excite them most."""
