"""`search`: images or texts near a text or an image, among the held-out samples of a run or in a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from sparc.config import SearchOptions, validated
from sparc.config.signatures import SearchArguments
from sparc.errors import InvalidConfig, MissingData
from sparc.models.streams import all_of, checked_streams, first_of
from sparc.session.arguments import Argument, Input
from sparc.session.encoding import Request
from sparc.session.files import check_output
from sparc.session.gallery import Part, check_folder, folder_jobs
from sparc.session.listener import SILENT, Listener
from sparc.session.options import as_options
from sparc.session.session import Session
from sparc.session.verbs import dry_warning
from sparc.storage.manifest import RANDOM
from sparc.storage.run import Run
from sparc.system.brief import Brief
from sparc.system.files import check_writable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sparc.core.codes import Codes
    from sparc.extraction import Job
    from sparc.index.inverted import InvertedIndex
    from sparc.index.results import Found, Hit, SharedConcept
    from sparc.models import Models


@dataclass(frozen=True, repr=False)
class Searched(Brief):
    """The hits of all queries, and the page or the sheet that shows them."""

    found: tuple[Found, ...]
    """By query, then by query stream and target stream."""
    page: Path | None
    random_weights: tuple[str, ...]
    """Streams with random weights; what they find says nothing about the models."""


def search(
    run: str | Path,
    queries: Argument | Sequence[Argument] = (),
    *,
    listener: Listener = SILENT,
    **arguments: Unpack[SearchArguments],
) -> Searched:
    """Find images or texts by texts or images, as `sparc search` does.

    queries: as the inputs of `sparc.encode`. Raises the SparcError that `sparc search` ends with, such as InvalidConfig
    for an `out` that is neither a page nor a sheet.
    """
    options = validated(SearchOptions, as_options(None, arguments, SearchOptions))
    out = None if options.out is None else Path(options.out)
    if out is not None and out.suffix.lower() not in (".html", ".png"):
        raise InvalidConfig(
            f"--out: expected a name that ends in .html or .png, found {out}", hint="a page is HTML, a sheet is a PNG"
        )
    if out is not None:
        for inputs in (queries, options.image):
            check_output(out, inputs, listener if inputs is queries else SILENT)
        check_writable(out.parent)
    checked_streams(Run.open(Path(run)), [*options.query_streams, *options.target_streams])
    request = Request.checked(run, queries, options, options.query_streams, listener)
    sources = request.used if options.query_streams else [first_of(request.modalities, kind) for kind in request.kinds]
    targets = _targets(request, options)
    jobs = _jobs(request, options, targets)
    models = request.load(sources)
    parts = [Part(part, models.space, request.registry, request.device, listener) for part in jobs]
    listener.doing("searching")
    finder = _Finder(models, parts, options, request.modalities)
    found = tuple(
        finder.find(one, source, code, target)
        for one, codes in zip(request.inputs, request.encoded(models), strict=True)
        for source, code in codes.items()
        for target in targets
    )
    drawn_at_random = {name for part in jobs for name, job in part.items() if job.weights == RANDOM}
    random_weights = tuple(name for name in request.modalities if name in {*drawn_at_random, *models.random_weights})
    if out is not None:
        listener.doing(f"drawing {out}")
        from sparc.index.page import write_page
        from sparc.index.sheet import write_sheet

        write = write_page if out.suffix.lower() == ".html" else write_sheet
        title = f"Search in {Path(options.index).name if options.index is not None else request.run.path.name}"
        write(found, out, title=title, notes=[dry_warning(random_weights)] if random_weights else [])
    return Searched(found, out, random_weights)


def _targets(request: Request, options: SearchOptions) -> list[str]:
    """Return the streams to search. Raises InvalidConfig if none reads what is to be found."""
    if options.target_streams:
        wrong = [
            name
            for name in options.target_streams
            if request.modalities[name] != (options.find or request.modalities[name])
        ]
        if wrong:
            raise InvalidConfig(
                f"--find {options.find}: the target stream '{wrong[0]}' reads {request.modalities[wrong[0]]}",
                hint="leave one of the two out",
            )
        return list(options.target_streams)
    kind = options.find or ("image" if "image" in request.modalities.values() else "text")
    return all_of(request.modalities, kind)


def _jobs(request: Request, options: SearchOptions, targets: Sequence[str]) -> list[dict[str, Job]]:
    """Return the jobs of the features to search, by target stream, for each split; those of a folder are extracted."""
    if options.index is not None:
        config = request.run.provenance().options
        places = {"device": request.device, **({"store": options.store} if options.store is not None else {})}
        folder = Path(options.index).expanduser()
        check_folder(folder, {request.modalities[target] for target in targets})
        streams = {target: request.all_streams[target] for target in targets}
        return folder_jobs(folder, config.model_copy(update=places), streams, request.registry, request.listener)
    jobs = Session.open(request.run.path, options, request.listener).data.held_out_jobs
    if lacking := [target for target in targets if not jobs[target].done]:
        raise MissingData(
            f"the store has no held-out features of {', '.join(lacking)}",
            hint="run sparc extract with the options of the run; or give the store that has them: --store; or search a "
            "folder: --index FOLDER",
        )
    return [{target: jobs[target] for target in targets}]


@dataclass(frozen=True)
class _Finder:
    models: Models
    parts: Sequence[Part]
    options: SearchOptions
    modalities: Mapping[str, str]

    def find(self, query: Input, source: str, code: Codes, target: str) -> Found:
        """Return the best hits of a query, whose code has one row, in all parts."""
        from sparc.index.results import Found

        hits = [hit for part in self.parts for hit in self._in(part, code, target)]
        hits.sort(key=lambda hit: -hit.score)
        return Found(
            query=query.shown,
            modality=query.modality,
            sample=query.sample,
            query_stream=source,
            target_stream=target,
            target_modality=self.modalities[target],
            by=self.options.by,
            candidates=sum(part.candidates(target) for part in self.parts),
            hits=tuple(hits[: self.options.top]),
        )

    def _in(self, part: Part, code: Codes, target: str) -> list[Hit]:
        """Return the best hits of a part, the best first."""
        import numpy as np

        from sparc.index.inverted import strongest
        from sparc.index.results import Hit

        if self.options.by == "cross":
            decoded_D = self.models.space.decode(code, target)[0]
            scores_M = part.cosines(target, decoded_D)
            owners_M = part.owners(target)
            best = strongest(scores_M, self.options.top)
            return [Hit(float(scores_M[row]), part.dataset[int(owners_M[row])]) for row in best]
        kept_K = (code.values[0] > 0).cpu()
        latents = code.indices[0].cpu()[kept_K].numpy().astype(np.int64)
        values = code.values[0].cpu()[kept_K].numpy().astype(np.float32)
        index = part.index(target, latents)
        scores_M = index.cosines(latents, values)
        best = strongest(scores_M, self.options.top)
        return [
            Hit(
                float(scores_M[row]),
                part.dataset[int(index.owners[row])],
                self._shared(index, int(row), latents, values),
            )
            for row in best
            if scores_M[row] > 0
        ]

    def _shared(
        self, index: InvertedIndex, row: int, latents: NDArray[np.int64], values: NDArray[np.float32]
    ) -> tuple[SharedConcept, ...]:
        from sparc.index.results import SharedConcept

        names = self.models.names
        return tuple(SharedConcept(one, names.get(one), share) for one, share in index.shared(row, latents, values))
