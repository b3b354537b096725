"""Dataset `hf`."""
