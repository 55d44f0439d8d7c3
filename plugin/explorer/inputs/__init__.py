"""The inputs of maps: networks with their weights, pictures, and sets of images."""
