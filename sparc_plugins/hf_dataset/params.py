"""Parameters of the dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from sparc.plugins import InvalidConfig, Params, split_revision
from sparc_plugins.hf_dataset.folders import check_folder


class HFParams(Params):
    """Parameters of the dataset."""

    path: str | None = None
    """Dataset on the hub, such as `nlphuji/flickr30k`."""
    revision: str | None = None
    """Branch, tag or commit of the dataset on the hub; by default the newest. `path=NAME@REVISION` is the same."""
    root: str | None = None
    """Or a local folder, also set by `--data-root`: files for `datasets.load_dataset`, or written by `save_to_disk`."""
    name: str | None = None
    """Configuration, if the dataset has several."""
    image: str = "image"
    """Column of images."""
    caption: str = "caption"
    """Column of captions: a text, or a list of texts, each of which makes a sample."""
    labels: str | None = None
    """Column of labels: a class, a text, a number, or a list of these."""
    id: str | None = None
    """Column of ids; default: split and row, such as `train/17`."""
    group: str | None = None
    """Column that is equal for rows that show the same image."""
    train_split: str = "train"
    """Split to train on."""
    test_split: str | None = None
    """Split to evaluate on; default: `test`, or without one a fraction `holdout` of the images."""
    holdout: float = 0.2
    """Fraction of the images that is held out if there is no split to evaluate on."""
    split_seed: int = 0
    """Seed of the draw of held-out images."""
    rows: int | None = Field(default=None, gt=0)
    """Number of rows of each split to use, from its start; default: all."""
    streaming: bool = False
    """Copy only the used columns and rows into the cache, instead of downloading all files first."""
    digest: Literal["sample", "all"] = "sample"
    """Part of a folder's files that identifies them: a `sample` of their content, or `all` of it."""
    taxonomy: str | None = None
    """JSON file that maps each label to its parents; default: all labels are roots."""

    @property
    def columns(self) -> dict[str, str]:
        """Column of each parameter that names one."""
        named = {name: getattr(self, name) for name in ("image", "caption", "labels", "id", "group")}
        return {name: column for name, column in named.items() if column is not None}

    @property
    def used(self) -> list[str]:
        """Columns in use, each once."""
        return list(dict.fromkeys(self.columns.values()))


def dataset_place(params: HFParams) -> str:
    """Return the hub repository or the local folder. Raises InvalidConfig and MissingData, without the library."""
    if (params.path is None) == (params.root is None):
        found = "neither" if params.path is None else "both"
        hint = "for example --dataset 'hf[path=nlphuji/flickr30k]'"
        raise InvalidConfig(f"hf: expected path=REPOSITORY or --data-root FOLDER, found {found}", hint=hint)
    if params.root is None:
        split_revision(str(params.path), params.revision)
        return str(params.path)
    if params.revision is not None:
        raise InvalidConfig(
            f"hf: revision={params.revision} is for a dataset on the hub, found a folder", hint="leave it out"
        )
    folder = Path(params.root).expanduser()
    check_folder(folder)
    return str(folder)
