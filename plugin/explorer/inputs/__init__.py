"""What maps are made of: networks with their weights, pictures, and sets of images."""
