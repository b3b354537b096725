"""Import features and spaces that other tools made, and export spaces for other libraries.

    feature_files.py       read a file of features: .npy, .npz, safetensors, Parquet, HDF5
    import_features.py     `sparc import features`: files of features into a folder for `sparc train --features`
    import_checkpoint.py   `sparc import checkpoint`: a checkpoint of the paper's research code into a space
    export_saelens.py      `sparc export --format saelens`: one stream of a space as a sparse autoencoder of SAELens

The package itself imports neither torch nor a file format's library. Letters in shapes: N samples of a file, d width of
a stream's features, D the same in suffixes of names, L latents.
"""

from pathlib import Path

from sparc.errors import InvalidConfig

EXPORT_FORMATS = ("saelens",)
"""Formats of `sparc export`."""
SPLITS = ("train", "test")
"""Splits of imported features."""


def check_new_folder(out: Path) -> None:
    """Raise InvalidConfig unless an export can write a new folder at `out`."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InvalidConfig(f"{out} already exists, and an export overwrites nothing", hint="choose another --out")
