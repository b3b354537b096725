"""The tables of a report: every number in its place, at 100 columns and in a file."""

import io
import re

import pytest
import torch
from rich.console import Console

from sparc.cli.tables.evaluation import evaluation_tables
from sparc.evaluation import HeldOut, evaluate
from sparc.evaluation.faults import faults, width_of_few
from tests.evaluation.test_evaluate import completed


def show(report, caption="", width=100, **kwargs):
    console = Console(file=io.StringIO(), width=width)
    for table in evaluation_tables(report, title="photos test", caption=caption, **kwargs):
        console.print(table)
    return console.file.getvalue()


def numbers(text, start, nth=0):
    """Return the numbers of the nth line that starts with `start`, without their intervals."""
    line = [line for line in text.splitlines() if line.startswith(start)][nth]
    return [
        float(number)
        for number in re.findall(r"(?<=\s)-?\d+(?:\.\d+)?(?=\s|$)", re.sub("±[.0-9]+", "", line.removeprefix(start)))
    ]


@pytest.fixture
def report(random_space, held):
    return evaluate(random_space(), HeldOut(held.features, held.groups, held.matrix, held.taxonomy)).report


def near(*values, digits=3):
    return [pytest.approx(value, abs=0.51 * 10**-digits) for value in values]


def test_reconstruction_is_shown_joint_then_solo(report):
    text = show(report)
    for source in "abc":
        for target in "abc":
            joint, solo = report.joint, report.solo
            assert numbers(text, f"{source} → {target} ") == near(
                joint.nmse[source][target], joint.r2[source][target], solo.nmse[source][target], solo.r2[source][target]
            )


def test_alignment_is_shown_beside_its_nulls_over_all_and_over_alive_latents(report):
    text = show(report)
    for row in report.jaccard:
        kinds = (row.joint, row.joint_null, row.solo, row.solo_null)
        expected = near(*(kind.all for kind in kinds), *(kind.alive for kind in kinds))
        assert numbers(text, f"{row.depth} ") == expected


def test_each_number_of_a_turned_table_has_a_name_of_its_own(report):
    """In 60 columns the alignment of this report, in 30 its reconstruction, is a paragraph per row."""

    def names(text, title):
        rows = text[text.index(title) :].partition("\n\n")[0].splitlines()
        return [row.strip().rpartition("  ")[0].strip() for row in rows if row.startswith("  ")]

    kinds = ("joint", "joint null", "solo", "solo null")
    overlaps = [f"{over} {kind}" for over in ("all", "alive") for kind in kinds]
    assert names(show(report, width=45), "Alignment") == overlaps * len(report.jaccard)
    measures = ["joint NMSE", "joint R²", "solo NMSE", "solo R²"]
    assert names(show(report, width=30), "Reconstruction") == measures * 9


def test_the_width_of_a_few_samples_is_said_and_of_many_is_not(random_space, held):
    """With 16 samples the largest half of a 95% interval of a share is 1.96 · √(0.5 · 0.5 / 16) = 0.245."""
    few = {name: rows[:16] for name, rows in held.features.items()}
    report = evaluate(random_space(), HeldOut(few, held.groups[:16])).report
    assert width_of_few(report).startswith(
        "these numbers are of 16 held-out samples: a share, such as R@1, may be off by 0.24 either way (95%)"
    )
    assert width_of_few(report.model_copy(update={"samples": 29})) is not None
    assert width_of_few(report.model_copy(update={"samples": 30})) is None


def test_a_search_at_chance_is_a_fault_except_of_a_few_samples(report):
    pairs = tuple(pair.model_copy(update={"latents": pair.chance}) for pair in report.retrieval)
    at_chance = report.model_copy(update={"retrieval": pairs})
    for samples, said in ((29, False), (30, True)):
        lines = faults(at_chance.model_copy(update={"samples": samples}))
        assert any(line.startswith("a search by latents finds no more than chance") for line in lines) == said


def test_latents_are_counted_joint_and_solo(report):
    text = show(report)
    for way, found in (("joint ", report.joint), ("solo ", report.solo)):
        expected = [found.alive, found.mixed, found.dead, *near(*found.l0.values(), digits=1)]
        assert numbers(text, way) == expected


def test_retrieval_is_shown_by_latents_then_by_cross_reconstruction_above_chance(report):
    text = show(report)
    for pair in report.retrieval:
        for nth, ranks in ((1, pair.latents), (2, pair.cross)):  # the first line of the pair is its reconstruction
            r1, r5, r10, _, mrr = numbers(text, f"{pair.query} → {pair.target} ", nth)
            assert [r1, r5, r10, mrr] == near(ranks.r1, ranks.r5, ranks.r10, ranks.mrr)


def test_everything_adds_what_streams_share_what_latents_are_called_and_what_they_tell(quick, random_space, held):
    samples = HeldOut(held.features, held.groups, held.matrix, held.taxonomy)
    report = evaluate(random_space(), samples, classifiers=True).report
    text = show(report, everything=True, width=80)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    for pair in report.sharing.overlaps:
        line = f"overlap of active latents, {pair.first} ↔ {pair.second}"
        assert numbers(text, line) == near(pair.overlap, pair.null)
    for name in "abc":
        assert numbers(text, f"never active in {name}") == [report.joint.dead_in[name], report.solo.dead_in[name]]
        assert numbers(text, f"latents active in {name} only") == [report.sharing.only[name]]
    names = report.concepts
    assert f"{names.confirmed} of {names.named} names hold" in text
    for row in names.depths:
        counts = [row.depth, row.labels, row.named, row.confirmed, row.taken]
        assert any([float(word) for word in line.split()[:5] if word.isdigit()] == counts for line in text.splitlines())
    single = text[text.index("1-D probes") :]
    for way in ("joint", "solo"):
        assert numbers(single, f"{way} ") == near(*report.probes.single[way].values())
    for one in report.probes.classifiers:
        seen = one.source if one.source == one.target else f"{one.source} → {one.target}"
        assert numbers(text, f"{one.features}, {seen} ") == near(one.linear, one.mlp)
    assert "by reconstruction" in text
    assert "without latents" not in text
    for part in ("Sharing", "Concepts", "probes", "Classifiers", "by reconstruction"):
        assert part not in show(report)


def test_names_by_the_papers_rule_are_shown_stream_by_stream(random_space, held):
    samples = HeldOut(held.features, held.groups, held.matrix, held.taxonomy)
    report = evaluate(random_space(), samples, rule="purity").report
    text = show(report, everything=True, width=80)
    assert max(map(len, text.splitlines())) <= 80
    part = text[text.index("Concepts by purity") :]
    for name, found in report.concepts.streams.items():
        measured = near(found.purity, found.lift)
        assert numbers(part, f"{name} ") == [found.named, found.taken, *near(found.effective, digits=1), *measured]
    assert f"{report.concepts.agreed} latents have the same name in every stream" in part


def chance(pair):
    return near(pair.chance.r1, pair.chance.r5, pair.chance.r10, pair.chance.median, pair.chance.mrr)


def test_chance_is_one_line_where_every_sample_has_every_stream(random_space, held):
    features = {name: rows[9:20] for name, rows in held.features.items()}
    report = evaluate(random_space(), HeldOut(features, held.groups[9:20])).report
    text = show(report)
    assert numbers(text, "chance, of 11") == chance(report.retrieval[0])
    assert text.count("chance") == 1


def test_chance_is_shown_for_each_two_streams_where_samples_lack_some(report):
    """a with b and a with c have 47 samples each, but others, in groups of other sizes."""
    text = show(report)
    assert text.count("chance") == 3
    for pair in report.retrieval:
        first, second = sorted((pair.query, pair.target))
        assert numbers(text, f"chance, {first} ↔ {second}, of {pair.candidates}") == chance(pair)


def test_chance_is_shown_for_each_direction_where_images_have_several_captions(random_space, held):
    image = torch.arange(10).repeat_interleave(2)
    features = {"a": held.features["a"][9:19][image], "b": held.features["b"][9:29]}
    rows = {"a": image, "b": torch.arange(20)}
    samples = HeldOut(features, [str(number) for number in image.tolist()], rows=rows)
    report = evaluate(random_space("ab"), samples).report
    text = show(report)
    assert numbers(text, "chance, a → b, of 20") == chance(report.retrieval[0])
    assert numbers(text, "chance, b → a, of 10") == chance(report.retrieval[1])
    assert text.count("chance") == 2


def test_the_legend_says_what_joint_solo_and_null_mean(report):
    text = show(report)
    for word in ("joint", "solo", "null"):
        assert re.search(rf"^{word}  .* (together|alone|shuffled)", text, re.MULTILINE)


def test_a_warning_stands_above_the_numbers(report):
    warning = "a: random weights (dry run)"
    assert warning not in show(report)
    assert show(report, warning).index(warning) < show(report, warning).index("Reconstruction")


def test_lines_fit_in_100_columns_and_carry_no_codes_in_a_file(report, random_space, held):
    text = show(report)
    assert max(map(len, text.splitlines())) <= 100
    assert "\x1b" not in text


def test_a_stream_name_is_shown_whole_whatever_is_in_it(plain_space):
    names = ("clip[model=b]", "a")
    features = {name: torch.tensor([[1.0, 0.2], [0.3, 1.0]]) for name in names}
    text = show(evaluate(plain_space(names), HeldOut(features, ["x", "y"])).report)
    for start in ("clip[model=b] → a", "a → clip[model=b]"):
        assert len([line for line in text.splitlines() if line.startswith(start)]) == 3
    assert "clip[model=b]" in text[text.index("active per sample") :].splitlines()[1]


def test_a_single_stream_has_no_alignment_and_no_retrieval(random_space, held):
    text = show(evaluate(random_space("b"), HeldOut({"b": held.features["b"]}, held.groups)).report)
    assert "Reconstruction" in text
    assert "Alignment" not in text
    assert "Retrieval" not in text


def test_what_has_no_number_is_a_dash(plain_space):
    features = {"a": torch.tensor([[1.0, 0.0], [0.0, 0.0]]), "b": torch.tensor([[0.0, 0.0], [0.0, 1.0]])}
    text = show(evaluate(plain_space(), HeldOut(features, ["x", "y"])).report)
    assert re.search(r"^a → b +- +- +- +-", text, re.MULTILINE)


def test_completion_is_shown_beside_the_papers_way(random_space, held):
    samples = HeldOut(held.features, held.groups, held.matrix, held.taxonomy)
    report = evaluate(completed(random_space(), held), samples).report
    plain, text = report.uncompleted, show(report)

    def mean(codes, *, same):
        found = [value for a, row in codes.nmse.items() for b, value in row.items() if (a == b) == same]
        return sum(found) / len(found)

    for title, same in (("self NMSE", True), ("cross NMSE", False)):
        assert numbers(text, title) == near(*(mean(codes, same=same) for codes in (plain.codes, report.solo)))
    expected = [sum(pair.latents.r10 for pair in pairs) / 6 for pairs in (plain.retrieval, report.retrieval)]
    assert numbers(text, "R@10 by latents") == near(*expected)
    first, second = plain.jaccard[1], report.jaccard[1]
    line = next(line for line in text.splitlines() if line.startswith("Jaccard at depth 1 (null)"))
    assert f"{first.solo.all:.3f} ({first.solo_null.all:.3f})" in line
    assert f"{second.solo.all:.3f} ({second.solo_null.all:.3f})" in line


def test_without_a_completion_there_is_no_such_table(report):
    assert "Completion" not in show(report)
