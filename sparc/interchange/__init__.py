"""Import features and spaces that other tools made, and export spaces for other libraries.

    import_features.py     `sparc import features`: files of features into a folder for `sparc train --features`
    feature_files.py       find features and ids in a file, or in a folder of parts
    feature_parts.py       which files of a folder are parts, and the metadata beside them
    file_ids.py            ids in files of features, and in files of ids alone
    in_memory.py           features, ids and labels in memory, for `sparc.train(features={...})`
    sample_labels.py       labels of samples in files, and beside imported features
    sample_arrays.py       files with an array for each sample
    sample_ids.py          ids as texts, and when two are the same
    journal.py             what an import writes, so that one that was killed starts again
    scatter.py             rows in storage order into shards of another order
    arrays.py              an array of a file: its description, and its blocks
    numpy_files.py, torch_files.py, parquet_files.py, hdf5_files.py     the formats
    import_checkpoint.py   `sparc import checkpoint`: a checkpoint of the paper's research code into a space
    export_saelens.py      `sparc export --format saelens`: one stream of a space as a sparse autoencoder of SAELens

The package itself imports neither torch nor a file format's library. Letters in shapes: N samples of a file, d width of
a stream's features, D the same in suffixes of names, L latents.
"""

import os
from pathlib import Path

from sparc.errors import InvalidConfig, SparcError
from sparc.system.files import is_temporary, read_json
from sparc.system.locks import holder, in_use
from sparc.system.refusals import writing

EXPORT_FORMATS = ("saelens",)
"""Formats of `sparc export`."""
SPLITS = ("train", "test")
"""Splits of imported features."""
SAE_CONFIG = "cfg.json"
"""Configuration of an exported sparse autoencoder."""


def check_new_folder(out: Path) -> None:
    """Raise InvalidConfig unless an export can write a new folder at `out`.

    What an export leaves that was killed does not count: temporary files, and a configuration without its weights,
    which are written last.
    """
    with writing(out):
        if not out.exists():
            return
        names = {path.name for path in out.iterdir() if not is_temporary(path)} if out.is_dir() else {""}
    if not names or (names == {SAE_CONFIG} and _is_ours(out / SAE_CONFIG)):
        return
    if out.is_dir() and (owner := holder(out)) is not None and owner.pid != os.getpid():
        raise in_use(out, owner, "wait until it ends; or choose another --out")
    raise InvalidConfig(f"{out} already exists, and an export overwrites nothing", hint="choose another --out")


def _is_ours(path: Path) -> bool:
    """Return True for the configuration of a sparse autoencoder that sparc has exported."""
    try:
        return str(read_json(path, what="a configuration")["metadata"]["made_by"]).startswith("sparc")
    except (SparcError, TypeError, KeyError):
        return False
