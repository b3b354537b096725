"""Dataset `open-images`."""
