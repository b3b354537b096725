"""The verb `ablate`: check a grid, extract features once, train all runs in worker processes, compare them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from sparc.ablation.folder import AblationFolder, description
from sparc.ablation.grid import Cell, Grid, cells, checked_grid, checked_seeds
from sparc.config import RunConfig, option_name
from sparc.config.fitting import fitted
from sparc.config.signatures import RunArguments
from sparc.errors import BadFeatures, Interrupted, InvalidConfig, counted
from sparc.plugins.registry import discover
from sparc.session import ABLATION_KEYS
from sparc.session.data import Data
from sparc.session.listener import SILENT, Listener
from sparc.session.on_the_fly import check_stored
from sparc.session.options import as_options, resolved, store_place
from sparc.session.session import program
from sparc.session.stopping import stop_on_signal, time_limit
from sparc.storage.manifest import feature_digests, read_manifest
from sparc.storage.run import Run
from sparc.system.brief import Brief

if TYPE_CHECKING:
    from sparc.ablation.pool import Work
    from sparc.ablation.results import Results

DEFAULT_SEEDS = 3


@dataclass(frozen=True)
class Study:
    """A checked ablation: its runs, its data and its folder."""

    folder: AblationFolder
    config: RunConfig
    """Configuration that all cells share."""
    grid: Grid
    cells: list[Cell]
    seeds: list[int]
    data: Data

    @property
    def description(self) -> dict[str, Any]:
        """Identity of the ablation, compared with the one already in the folder."""
        return description(self.config, self.grid, self.seeds)


@dataclass(repr=False)
class StudyOutcome(Brief):
    """Results of the finished runs, and the errors of the diverged ones, in the order of the plan."""

    results: Results
    diverged: list[BadFeatures] = field(default_factory=list)


def ablate(
    config: RunConfig | None = None,
    *,
    grid: Mapping[str, Sequence[Any]],
    seeds: int | None = None,
    listener: Listener = SILENT,
    **arguments: Unpack[RunArguments],
) -> Results:
    """Train and evaluate every combination of a grid with several seeds, as `sparc ablate` does.

    `grid` maps each option that varies to a list of values; the other options are the fields of RunConfig. Call it
    again with the same `out` to resume an interrupted ablation. Warns about runs that diverged. Raises Interrupted, and
    the SparcError that `sparc ablate` ends with.
    """
    study = plan_study(as_options(config, arguments, RunConfig), grid, seeds, listener)
    outcome = run_study(study, listener)
    for error in outcome.diverged:
        listener.warn(error.message)
    return outcome.results


def plan_study(
    given: Mapping[str, Any],
    grid: Any,
    seeds: int | None,
    listener: Listener,
    file: Mapping[str, Any] | None = None,
) -> Study:
    """Check an ablation before anything is extracted. `file` may hold options, `grid` and `seeds`.

    Raises InvalidConfig, UnknownName and the SparcError of a plugin.
    """
    file = file or {}
    table = file.get("grid", {})
    if not isinstance(grid, Mapping):
        checked_grid(grid)  # raises
    grid = {option_name(str(key)): values for key, values in grid.items()}
    if twice := [key for key in grid if given.get(key) is not None]:
        raise InvalidConfig(f"--grid varies {twice[0]}, found --{twice[0]} too", hint="remove one of them")
    checked = checked_grid({**table, **grid} if isinstance(table, Mapping) else table)
    registry = discover()
    rest = {key: value for key, value in file.items() if key not in ABLATION_KEYS}
    config = resolved(given, registry, rest)
    check_stored(config, "an ablation trains many times on the same stored features", "leave it out")
    config = config.model_copy(update={"store": store_place(config)})
    numbers = checked_seeds(seeds if seeds is not None else file.get("seeds", DEFAULT_SEEDS), config.seed)
    every = cells(config, checked)
    default = Run.next_free(Path("runs"), f"ablation-{config.source.name}")
    folder = AblationFolder(Path(config.out) if config.out is not None else default)
    folder.check(description(config, checked, numbers))
    return Study(folder, config, checked, every, numbers, Data(config, registry, listener=listener))


def run_study(study: Study, listener: Listener) -> StudyOutcome:
    """Extract features, train the missing runs, and write tables and plots of all runs into the folder.

    Raises Interrupted, and the error of the first run if all of them diverged.
    """
    with time_limit(study.config), study.folder.owned():
        return _run_owned(study, listener)


def _run_owned(study: Study, listener: Listener) -> StudyOutcome:
    study.data.extract()
    listener.doing("checking the features")
    diverged = _train_all(study, listener)
    if len(diverged) == len(study.cells) * len(study.seeds):
        raise diverged[min(diverged)]
    listener.doing("drawing tables and plots")
    from sparc.ablation.plots import draw
    from sparc.ablation.results import collect

    results = collect(study.cells, study.seeds, study.folder.run)
    results.write(study.folder.path)
    draw(results, study.grid, study.folder.path)
    return StudyOutcome(results, [diverged[place] for place in sorted(diverged)])


def _train_all(study: Study, listener: Listener) -> dict[int, BadFeatures]:
    """Train and evaluate the runs that have no evaluation yet; return errors of diverged runs by place in the plan."""
    from sparc.ablation.pool import Work, make_all, room
    from sparc.ablation.worker import Task

    held_out = _describe(study)
    works = [
        Work(cell, study.folder.run(cell, seed), fitted(study.folder.config(cell, seed), len(study.data.train)))
        for cell in study.cells
        for seed in study.seeds
    ]
    waiting = []
    for work in works:
        if work.run.evaluation.is_file():
            work.run.sweep_if_free()
        else:
            waiting.append(work)
    size = f"{counted(len(works), 'run')}: {counted(len(study.cells), 'cell')}, {counted(len(study.seeds), 'seed')}"
    if not waiting:
        listener.note(f"{size}; all are done")
        return {}
    share = room(waiting, study.data.train.widths, held_out, study.data.device)
    done = len(works) - len(waiting)
    before = f"{done} already done; " if done else ""
    listener.note(f"{size}; {before}training {share.workers} at a time, {counted(share.threads, 'thread')} each")
    task = Task(study.config, study.data.jobs, study.data.device, program())
    ends = _StudyProgress(works, done, listener)
    with stop_on_signal() as stopped:
        if not make_all(waiting, task, share, report=ends, should_stop=stopped):
            why = str(stopped.error)
            raise Interrupted(study.folder.path, f"sparc.ablate(..., out={str(study.folder.path)!r}), as before", why)
    return ends.diverged


class _StudyProgress:
    """Progress of the runs, and the errors of those that diverged."""

    def __init__(self, works: Sequence[Work], done: int, listener: Listener) -> None:
        self.diverged: dict[int, BadFeatures] = {}
        """Errors by place in the plan."""
        self._works = works
        self._done = done
        self._listener = listener
        listener.progress("ablate", "runs", done, len(works))

    def done(self, work: Work) -> None:
        """Report that a run is trained and evaluated."""
        self._done += 1
        self._listener.progress("ablate", "runs", self._done, len(self._works), work.cell.name)

    def failed(self, work: Work, error: BadFeatures) -> None:
        """Keep the error of a run that diverged."""
        where = f"{work.cell.name} with seed {work.config.seed}"
        hint = "remove that value from the grid and keep --out: the other runs are kept"
        self.diverged[self._works.index(work)] = BadFeatures(f"{where}: {error.message}", hint=hint)


def _describe(study: Study) -> int:
    """Check the features, record their digests in the folder, and return the number of held-out samples.

    Raises MisalignedStreams if earlier runs were trained on other features.
    """
    study.data.check([cell.config.normalization for cell in study.cells])
    held_out = {name: read_manifest(job.directory) for name, job in study.data.held_out_jobs.items()}
    digests = {"train": feature_digests(study.data.train.manifests), "test": feature_digests(held_out)}
    study.folder.describe(study.description, digests)
    return next(iter(held_out.values())).samples
