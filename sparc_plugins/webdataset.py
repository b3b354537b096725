"""Dataset `webdataset`."""
