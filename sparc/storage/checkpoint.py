"""A trained space on disk: configuration, weights and completion, here or on the Hugging Face Hub. No pickle.

`docs/reference/checkpoint-format.md` is normative. `huggingface_hub.PyTorchModelHubMixin` does not fit: it writes the
weights in place and apart from the configuration, its `config.json` has no format version, and its `push_to_hub`
replaces the card that an author may have edited.
"""

from __future__ import annotations

import filecmp
import shutil
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor

from sparc.config import SpaceConfig, TrainingConfig
from sparc.core.space import LatentSpace
from sparc.errors import CorruptFile, InvalidConfig, MissingData, SparcError
from sparc.storage.belonging import WEIGHTS, check_belongs, run_digests, weights_in
from sparc.storage.card import CARD, model_card
from sparc.storage.completion_file import completion_writer, read_completion
from sparc.storage.nearby import near_run
from sparc.storage.provenance import PROVENANCE
from sparc.storage.space_config import COMPLETION, CONFIG, MODEL, config_content, read_config, read_config_file
from sparc.storage.tensor_files import DIGEST, digest, read_tensors, write_tensors
from sparc.storage.weight_files import INDEXED, PATTERNS, read_split, weight_files, weights_path
from sparc.system.devices import devices, no_device
from sparc.system.files import json_writer, write_together
from sparc.system.finite import not_finite
from sparc.system.hub import asking_hub, hub_refusal, reason, split_revision
from sparc.system.refusals import reading, writing
from sparc.system.tensor_headers import read_header

_COMPLETED = "completion"
"""Key of `config.json`: true if the space had a completion when it was saved."""
HEADER_BYTES = 1 << 10
"""Bytes of a file's header for each tensor, and for what it says beside them."""


class SharedLatentSpace(LatentSpace):
    """One sparse dictionary shared by many frozen models, with its configuration; it can be saved and loaded."""

    def __init__(self, config: SpaceConfig, *, seed: int = 0) -> None:
        """Initialise an untrained space of the shape that `config` describes."""
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
        """Directory that the space was loaded from; None for a new space."""

    def save_pretrained(self, directory: str | Path, *, training: TrainingConfig | None = None) -> None:
        """Write the space into `directory`, with its completion, and `training` for the record.

        Raises:
            InvalidConfig: `directory` is a finished run, which is never overwritten.
            StorageError: the disk is full or refuses; existing files stay as they were.
        """
        directory = Path(directory)
        if (directory / PROVENANCE).is_file() and weights_path(directory) is not None:
            raise InvalidConfig(
                f"{directory} is a finished run, and a run is never overwritten",
                hint="save into another folder",
            )
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        weights, completion = digest(tensors, {"format": "pt"}), self.completion
        part = {} if completion is None else {directory / COMPLETION: completion_writer(completion, weights)}
        described = {WEIGHTS: weights, _COMPLETED: completion is not None, **run_digests(directory)}
        write_together(
            {
                **part,
                directory / CONFIG: json_writer({**config_content(self.config, training), **described}),
                directory / MODEL: lambda path: write_tensors(path, tensors, {"format": "pt", DIGEST: weights}),
            }
        )
        with writing(directory):  # what is left of a space that was saved here before
            (directory / INDEXED).unlink(missing_ok=True)
            if completion is None:
                (directory / COMPLETION).unlink(missing_ok=True)

    @classmethod
    def from_pretrained(
        cls, directory_or_id: str | Path, *, device: str = "cpu", revision: str | None = None
    ) -> SharedLatentSpace:
        """Load a space from a directory, such as a run, or from the Hugging Face Hub, in evaluation mode.

        revision: branch, tag or commit of the hub's repository; the newest by default. `NAME@REVISION` is the same.

        Raises:
            MissingData: there is no such directory with a checkpoint, and no hub repository that can be read.
            IncompatibleFormat: a newer sparc wrote the space.
            CorruptFile: a file is truncated, altered, or does not fit the configuration.
            StorageError: the machine refuses to read a file.
            InvalidConfig: the device does not exist, or a revision is given for a directory.
        """
        directory = Path(directory_or_id)
        with reading(directory):
            is_local = directory.is_dir()
        if not is_local:
            directory = _download(str(directory_or_id), revision)
        elif revision is not None:
            raise InvalidConfig(
                f"revision={revision}: expected the name of a hub repository, found the directory {directory}",
                hint="leave revision= out",
            )
        path = weights_path(directory)
        with reading(directory):
            is_run = (directory / PROVENANCE).is_file()
        if is_run and path is None:
            raise MissingData(
                f"the run {directory} is not finished", hint=f"resume it: sparc train --resume {directory}"
            )
        config = read_config(directory)
        if path is None:
            raise MissingData(
                f"{directory} has no {MODEL}",
                hint=f"if its training was interrupted, resume it: sparc train --resume {directory}",
            )
        described = read_config_file(directory)
        check_belongs(directory / CONFIG, described.get(WEIGHTS), "copy all files of one run")
        space = cls._with_weights(config, path, described.get(WEIGHTS))
        space.completion = read_completion(directory, config)
        if space.completion is None and described.get(_COMPLETED) is True:
            warnings.warn(
                f"{directory / COMPLETION} is missing, so the space guesses no missing streams as it did when it was "
                f"saved; copy that file too, or: sparc complete {directory}",
                stacklevel=2,
            )
        space.directory = directory
        try:
            return space.to(device).eval()
        except (RuntimeError, AssertionError) as error:  # unknown name, or no such device in this build or machine
            raise InvalidConfig(f"the device {no_device(str(device))}", hint=devices()) from error

    @classmethod
    def _with_weights(cls, config: SpaceConfig, path: Path, said: object) -> SharedLatentSpace:
        """Return a space with the weights of a file, or of those that an index lists; `said` is their digest.

        Nothing is allocated before the headers fit the configuration. Raises CorruptFile, MissingData or StorageError.
        """
        try:
            most = HEADER_BYTES * (8 + len(config.streams))
            files = weight_files(path.parent)
            for file in files:
                read_header(file, most)
            _check_length(files, config)
            with torch.device("meta"):
                space = cls(config)
            shapes = {name: tuple(tensor.shape) for name, tensor in space.state_dict().items()}
            if path.name == INDEXED:
                state = read_split(path, shapes, most)
                _check_split(path, state, said)
            else:
                state = read_tensors(path, shapes, most)
        except (SafetensorError, RuntimeError, ValueError, OSError) as error:
            reason = str(error).strip().splitlines()[0]
            raise CorruptFile(
                f"{path} is truncated or does not fit {CONFIG}: {reason}", hint="copy the file again, or train again"
            ) from error
        if (wrong := not_finite(state)) is not None:
            raise CorruptFile(
                f"{path}: expected finite weights, found {wrong}", hint="copy the file again, or train again"
            )
        space.load_state_dict({name: tensor.float() for name, tensor in state.items()}, assign=True)
        return space

    def push_to_hub(self, repo_id: str, *, private: bool | None = None, message: str = "Upload sparc space") -> str:
        """Upload the space and a model card to a repository on the Hugging Face Hub, created if it does not exist.

        The card reports the training and the metrics of the run that the space was loaded from, unless the weights have
        changed since. An existing card in the repository is kept, because its author may have edited it. Returns the
        address of the repository.

        Raises SparcError if the hub cannot be reached, or refuses the user or the name.
        """
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            try:
                return self._push(repo_id, Path(folder), private, message)
            except SparcError:
                raise
            except Exception as error:  # errors of the HTTP library pass through the hub's client
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
            model_card(described, repo_id).save(folder / CARD)
        commit = api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message=message)
        return str(commit.repo_url)

    def _described(self, saved: Path) -> Path:
        """Return the run this space was loaded from if it is unchanged, else the directory it is saved in."""
        if self.directory is None or (path := weights_path(self.directory)) is None:
            return saved
        same = _alike(path, saved / MODEL) if path.name == MODEL else weights_in(self.directory) == weights_in(saved)
        return self.directory if same and _alike(self.directory / COMPLETION, saved / COMPLETION) else saved


def _alike(one: Path, other: Path) -> bool:
    """Return True if two files have the same bytes, or if neither exists."""
    if not (one.is_file() and other.is_file()):
        return one.is_file() == other.is_file()
    return filecmp.cmp(one, other, shallow=False)


def _check_split(index: Path, state: Mapping[str, Tensor], said: object) -> None:
    """Raise CorruptFile unless weights in several files have the digest that `config.json` says.

    Other programs write no digests into files. Weights of another type than float32 were changed by one.
    """
    if isinstance(said, str) and all(tensor.dtype == torch.float32 for tensor in state.values()):
        found = digest(state, {"format": "pt"})
        if found != said:
            raise CorruptFile(
                f"the weights that {index} lists are altered, or of another space than {CONFIG}: expected the digest "
                f"{said[:12]}, found {found[:12]}",
                hint="copy all files of one space",
            )


def _check_length(files: Sequence[Path], config: SpaceConfig) -> None:
    """Raise ValueError if files are too short for the weights that a configuration describes, of two bytes at least."""
    needed = 2 * 2 * config.n_latents * sum(config.streams.values())
    found = 0
    for path in files:
        with reading(path):
            found += path.stat().st_size
    if found < needed:
        raise ValueError(f"expected at least {needed:,} bytes for {config.n_latents:,} latents, found {found:,}")


def load(directory_or_id: str | Path, *, device: str = "cpu", revision: str | None = None) -> SharedLatentSpace:
    """Load a trained space from a run directory, or by its name on the Hugging Face Hub, in evaluation mode.

    revision: branch, tag or commit of the hub's repository; the newest by default. `NAME@REVISION` is the same.

    Raises:
        MissingData: there is no such directory with a checkpoint, and no hub repository that can be read.
        IncompatibleFormat: a newer sparc wrote the space.
        CorruptFile: a file is truncated, altered, or does not fit the configuration.
        InvalidConfig: the device does not exist, or a revision is given for a directory.
    """
    return SharedLatentSpace.from_pretrained(directory_or_id, device=device, revision=revision)


def _download(name: str, revision: str | None) -> Path:
    """Download a hub repository into the local cache, and return its directory.

    Raises:
        MissingData: there is no such repository or revision, or it cannot be read.
        InvalidConfig: `name` names another revision than `revision`.
        StorageError: the disk is full or refuses.
    """
    from huggingface_hub import snapshot_download

    repo, revision = split_revision(name, revision)
    fetch = partial(snapshot_download, repo, revision=revision, allow_patterns=[CONFIG, *PATTERNS, COMPLETION])
    try:
        try:
            with asking_hub(connect=True):
                return Path(fetch())
        except ConnectionError:
            return Path(fetch(local_files_only=True))
    except Exception as error:  # errors of the HTTP library pass through the hub's client
        if (found := hub_refusal(error, f"download {name}")) is not None:
            raise found from error
        raise MissingData(
            f"no checkpoint at '{name}': it is no directory here, and no hub repository that can be read "
            f"({reason(error)})",
            hint=near_run(name, "check the path; or connect to the network for a repository"),
        ) from error
