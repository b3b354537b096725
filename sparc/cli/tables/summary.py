"""Lines that a person asks for first about a run: what it is, if it is done, how good it is, and what to do next."""

from __future__ import annotations

import shlex

from sparc.errors import counted
from sparc.evaluation.report import CodeMeasures, EvaluationFile, Report
from sparc.storage.provenance import Provenance
from sparc.storage.run import Run
from sparc.storage.space_config import read_config


def summary(run: Run, provenance: Provenance) -> list[str]:
    """Return the lines. Raises CorruptFile if a file of the run cannot be read."""
    options = provenance.options
    data = "imported features" if options.features is not None else f"dataset {options.source.name}"
    streams = counted(len(provenance.streams), "stream")
    lines = [
        f"run {run.path}: {streams} ({', '.join(provenance.streams)}), "
        f"{data}, {counted(provenance.samples, 'training sample')}"
    ]
    place = shlex.quote(str(run.path))
    if not run.finished:
        return [*lines, "state: not finished", f"next: sparc train --resume {place}"]
    space = read_config(run.path)
    state = "trained and evaluated" if run.evaluation.is_file() else "trained, not evaluated"
    lines.append(f"state: {state}; {space.n_latents:,} latents, {space.k} kept per sample")
    if not run.evaluation.is_file():
        return [*lines, f"next: sparc evaluate {place}"]
    report = EvaluationFile.read(run.evaluation).report
    evaluated = report.probes is not None or any(run.pictures.glob("*.png"))
    more = "" if evaluated else f"; sparc evaluate {place} adds probes and plots"
    return [*lines, f"quality: {quality(report)}", f"next: sparc explore {place} shows what the latents mean{more}"]


def quality(report: Report) -> str:
    """Return the few numbers of a report that say how good a space is, in words."""
    parts = []
    if (own := mean_nmse(report.joint, same=True)) is not None:
        parts.append(f"NMSE {own:.2f} from a stream to itself (0 is perfect, 1 says no more than the mean)")
    if (cross := mean_nmse(report.solo, same=False)) is not None:
        parts.append(f"{cross:.2f} from one stream to another")
    if report.retrieval:
        ranks, chance = (
            sum(getattr(pair, kind).r1 for pair in report.retrieval) / len(report.retrieval)
            for kind in ("latents", "chance")
        )
        found = f"a search across streams finds the right sample first {ranks:.0%} of the time"
        parts.append(f"{found} (chance {chance:.1%})")
    parts.append(f"{report.joint.dead / report.n_latents:.0%} of the latents are dead on held-out samples")
    return "; ".join(parts)


def mean_nmse(codes: CodeMeasures, *, same: bool) -> float | None:
    """Return the mean of the matrix's diagonal, or of its other entries; None if no entry is a number."""
    found = [
        value
        for source, row in codes.nmse.items()
        for target, value in row.items()
        if value is not None and (source == target) == same
    ]
    return sum(found) / len(found) if found else None
