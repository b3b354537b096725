"""Dataset `coco`."""
