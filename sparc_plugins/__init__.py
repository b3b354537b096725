"""The plugins that ship with sparc.

They are ordinary plugins: pyproject.toml declares each module in the entry-point group that everyone uses.

Letters in shapes, in this package: B samples of a batch, N samples of a dataset, T tokens, d width of the features, H
and W height and width of an image in pixels.
"""
