"""A trained space on disk: `config.json` and `model.safetensors`, here or on the Hugging Face Hub. No pickle."""

from __future__ import annotations

import filecmp
import shutil
import tempfile
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from sparc.config import SpaceConfig, TrainingConfig, validated
from sparc.core.space import LatentSpace
from sparc.errors import CorruptFile, IncompatibleFormat, InvalidConfig, MissingData, SparcError
from sparc.storage.card import CARD, PROVENANCE, card
from sparc.system.files import json_writer, read_json, write_together

FORMAT_VERSION = 1
CONFIG = "config.json"
MODEL = "model.safetensors"


class SharedLatentSpace(LatentSpace):
    """One sparse dictionary shared by many frozen models, with its configuration, to be saved and loaded."""

    def __init__(self, config: SpaceConfig, *, seed: int = 0) -> None:
        """Draw a space of the shape that `config` says, untrained."""
        super().__init__(
            config.streams,
            config.n_latents,
            config.k,
            selection=config.selection,
            normalization=config.normalization,
            seed=seed,
        )
        self.config = config
        self.directory: Path | None = None
        """Where it was loaded from."""

    def save_pretrained(self, directory: str | Path, *, training: TrainingConfig | None = None) -> None:
        """Write the space into `directory`; `training` is kept beside it for the record.

        Raises:
            InvalidConfig: a finished run is there, which is never overwritten.
            StorageError: the disk is full or refuses; files that were there stay as they were.
        """
        directory = Path(directory)
        if (directory / PROVENANCE).is_file() and (directory / MODEL).is_file():
            raise InvalidConfig(
                f"{directory} is a run that is trained already, and a run is never overwritten",
                hint="save into another folder",
            )
        content: dict[str, Any] = {"format_version": FORMAT_VERSION, "space": self.config.model_dump()}
        if training is not None:
            content["training"] = training.model_dump()
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        write_together(
            {
                directory / CONFIG: json_writer(content),
                directory / MODEL: lambda path: save_file(tensors, path, metadata={"format": "pt"}),
            }
        )

    @classmethod
    def from_pretrained(
        cls, directory_or_id: str | Path, *, device: str = "cpu", revision: str | None = None
    ) -> SharedLatentSpace:
        """Load a space from a directory, such as a run, or from the Hugging Face Hub; in evaluation mode.

        Raises:
            MissingData: it is neither a directory with a checkpoint nor a hub repository that can be read.
            IncompatibleFormat: it was written by a newer sparc.
            CorruptFile: a file is truncated, altered, or does not fit the configuration.
            InvalidConfig: a device that is not there.
        """
        directory = Path(directory_or_id)
        if not directory.is_dir():
            directory = _download(str(directory_or_id), revision)
        path = directory / MODEL
        if (directory / PROVENANCE).is_file() and not path.is_file():
            raise MissingData(
                f"the run {directory} is not finished", hint=f"go on with it: sparc train --resume {directory}"
            )
        config = read_config(directory)
        if not path.is_file():
            raise MissingData(
                f"{directory} has no {MODEL}",
                hint=f"if its training was interrupted, go on with: sparc train --resume {directory}",
            )
        space = cls(config)
        try:
            space.load_state_dict(load_file(path))
        except (SafetensorError, RuntimeError, OSError) as error:
            reason = str(error).strip().splitlines()[0]
            raise CorruptFile(
                f"{path} is truncated or does not fit {CONFIG}: {reason}", hint="copy or train it anew"
            ) from error
        space.directory = directory
        try:
            return space.to(device).eval()
        except (RuntimeError, AssertionError) as error:  # a name, a build or a machine without it
            raise InvalidConfig(
                f"the device '{device}' is not there: {str(error).splitlines()[0]}", hint="cpu, cuda, cuda:1, ..."
            ) from error

    def push_to_hub(self, repo_id: str, *, private: bool | None = None, message: str = "Upload sparc space") -> str:
        """Upload the space and a model card to a repository on the Hugging Face Hub, made if need be.

        The card says what the run that the space was loaded from says of it, unless the weights have changed since. A
        card that the repository has already stays, since its author may have written there. Returns the address.

        Raises SparcError where the hub cannot be reached, does not know who asks, or does not let them.
        """
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            try:
                return self._push(repo_id, Path(folder), private, message)
            except SparcError:
                raise
            except Exception as error:  # the hub's client lets through those of whichever HTTP library it uses
                reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
                raise SparcError(
                    f"the space could not be pushed to '{repo_id}': {reason}",
                    hint="log in with `hf auth login`, and check the name, NAMESPACE/NAME, and the network",
                ) from error

    def _push(self, repo_id: str, folder: Path, private: bool | None, message: str) -> str:
        from huggingface_hub import HfApi

        api = HfApi()
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        described = self._described(folder)
        if described != folder:
            shutil.copyfile(described / CONFIG, folder / CONFIG)
        if not api.file_exists(repo_id, CARD):
            (folder / CARD).write_text(card(described, repo_id), encoding="utf-8")
        commit = api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message=message)
        return str(commit.repo_url)

    def _described(self, saved: Path) -> Path:
        """The directory that says most of these weights: where they were loaded from, or where they are saved."""
        if self.directory is None or not (self.directory / MODEL).is_file():
            return saved
        same = filecmp.cmp(self.directory / MODEL, saved / MODEL, shallow=False)
        return self.directory if same else saved


def load(directory_or_id: str | Path, *, device: str = "cpu") -> SharedLatentSpace:
    """Load a trained space from a run directory, or by its name on the Hugging Face Hub; in evaluation mode.

    Raises:
        MissingData: it is neither a directory with a checkpoint nor a hub repository that can be read.
        IncompatibleFormat: it was written by a newer sparc.
        CorruptFile: a file is truncated, altered, or does not fit the configuration.
    """
    return SharedLatentSpace.from_pretrained(directory_or_id, device=device)


def read_config(directory: Path) -> SpaceConfig:
    """Read the shape of the space in `directory`. Raises MissingData, CorruptFile or IncompatibleFormat."""
    content = read_json(directory / CONFIG, what="the configuration of a space")
    version = content.get("format_version") if isinstance(content, dict) else None
    if not isinstance(version, int):
        raise CorruptFile(f"{directory / CONFIG} has no format version", hint="is this a directory that sparc wrote?")
    if version > FORMAT_VERSION:
        raise IncompatibleFormat(
            f"{directory} has format version {version}, this sparc reads up to {FORMAT_VERSION}",
            hint="upgrade: pip install -U sparc-sae",
        )
    try:
        return validated(SpaceConfig, content.get("space"), what=str(directory / CONFIG))
    except InvalidConfig as error:
        raise CorruptFile(error.message, hint="restore the file, or train anew") from error


def _download(repo_id: str, revision: str | None) -> Path:
    """The hub repository's files, through the local cache."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repo_id, revision=revision, allow_patterns=[CONFIG, MODEL]))
    except (HFValidationError, LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise MissingData(
            f"no checkpoint at '{repo_id}': it is no directory here, and no hub repository that can be read "
            f"({type(error).__name__})",
            hint="check the path; or connect to the network for a repository",
        ) from error
