"""Plots of a report: numbers in the right place, readable words, reproducible files."""

import math
import resource
from itertools import combinations, permutations

import matplotlib
import pytest
from matplotlib.colors import to_hex
from matplotlib.text import Text

from sparc.errors import StorageError
from sparc.evaluation import plots
from sparc.evaluation.report import (
    Classifier,
    CodeMeasures,
    ConceptDepth,
    Concepts,
    DepthOverlap,
    IndexOverlap,
    Overlap,
    Pattern,
    Probes,
    PurityConcepts,
    PurityNames,
    Ranks,
    Report,
    Retrieval,
    Sharing,
)
from sparc.plotting import figures

DEMO = ("effnet-lite0", "effnet-lite2", "minilm")
EIGHT = tuple(f"a-stream-named-{number}" for number in range(1, 9))
LATENTS = 4096


def encoded(streams, error, alive):
    """Measures that differ for every source and target, with one more latent for each set of streams."""
    places = list(enumerate(streams))
    nmse = {
        source: {target: error + 0.2 * (row != column) + 0.02 * row + 0.007 * column for column, target in places}
        for row, source in places
    }
    sets = [some for size in range(1, len(streams)) for some in combinations(streams, size)]
    patterns = tuple(Pattern(streams=some, latents=3 + number % 40) for number, some in enumerate(sets[:100]))
    mixed = sum(pattern.latents for pattern in patterns)
    return CodeMeasures(
        nmse=nmse,
        r2={source: {target: 1 - 1.4 * value for target, value in row.items()} for source, row in nmse.items()},
        l0=dict.fromkeys(streams, 21.5),
        alive=alive,
        dead=LATENTS - alive - mixed,
        mixed=mixed,
        patterns=patterns,
        dead_in=dict.fromkeys(streams, 7),
    )


def overlap(value):
    alive = min(1, 1.2 * value)
    return Overlap(
        all=value,
        alive=alive,
        all_interval=(value - 0.02, value + 0.02),
        alive_interval=(alive - 0.03, min(1, alive + 0.03)),
    )


def depth(number):
    return DepthOverlap(
        depth=number,
        joint=overlap(0.81 - 0.01 * number),
        solo=overlap(0.42 / (1 + number)),
        joint_null=overlap(0.77),
        solo_null=overlap(0.2 / (1 + 2 * number)),
    )


def ranks(value):
    return Ranks(r1=value, r5=2 * value, r10=2.4 * value, median=9, mrr=1.4 * value)


def found(query, target, number, shares_a_space):
    return Retrieval(
        query=query,
        target=target,
        queries=290,
        candidates=290,
        latents=ranks(0.2 + 0.002 * number),
        reconstruction=ranks(0.24 - 0.001 * number),
        cross=ranks(0.11 + 0.001 * number),
        raw=ranks(0.3) if shares_a_space else None,
        chance=Ranks(r1=1 / 290, r5=5 / 290, r10=10 / 290, median=145, mrr=0.02),
    )


def classifiers(streams):
    for features, value in (("raw", 0.44), ("latents", 0.36), ("reconstruction", 0.38)):
        for number, name in enumerate(streams):
            yield Classifier(
                features=features, source=name, target=name, linear=value + 0.01 * number, mlp=value + 0.03
            )
    for number, (source, target) in enumerate(permutations(streams, 2)):
        value = 0.3 + 0.005 * number
        yield Classifier(features="cross-reconstruction", source=source, target=target, linear=value, mlp=value + 0.02)


def labelled(streams):
    rows = ((0, 10, 10, 7.3, 0.31), (1, 98, 71, 41.2, 0.38), (2, 411, 163, 96.6, 0.44), (3, 690, 120, 80.1, 0.52))
    depths = tuple(
        ConceptDepth(
            depth=depth,
            labels=labels,
            named=400,
            confirmed=310,
            taken=taken,
            effective=effective,
            frequent_share=share,
            frequency_correlation=0.3,
        )
        for depth, labels, taken, effective, share in rows
    )
    single = {way: {name: loss + 0.01 * len(name) for name in streams} for way, loss in (("joint", 0.4), ("solo", 0.5))}
    return {
        "jaccard": tuple(map(depth, range(4))) if len(streams) > 1 else (),
        "concepts": Concepts(rule="enrichment", named=1502, confirmed=1211, purity=0.6, lift=8.9, depths=depths),
        "probes": Probes(
            labels=60, train=2000, test=290, single=single, classifiers=tuple(classifiers(streams)), chance=0.04
        ),
    }


def example(streams=DEMO, *, labels=True):
    """A report with plausible numbers, all different wherever a test must tell places apart."""
    pairs = list(permutations(streams, 2))
    overlaps = tuple(
        IndexOverlap(first=first, second=second, overlap=0.2 + 0.005 * number, null=0.03 + 0.001 * number)
        for number, (first, second) in enumerate(combinations(streams, 2))
    )
    sharing = Sharing(
        overlaps=overlaps,
        shared=900,
        only=dict.fromkeys(streams, 100),
        dead=20,
        duplicates=14,
        cofiring=0.21,
        cofiring_null=0.03,
        entropy=0.8,
    )
    return Report(
        samples=290,
        streams=streams,
        n_latents=LATENTS,
        k=32,
        selection="global",
        joint=encoded(streams, 0.31, alive=1400),
        solo=encoded(streams, 0.36, alive=600),
        sharing=sharing if pairs else None,
        retrieval=tuple(found(*pair, number, set(pair) == set(streams[:2])) for number, pair in enumerate(pairs)),
        **(labelled(streams) if labels else {}),
    )


def drawn(name, report):
    with figures.look():
        return plots.DRAWINGS[name](report)


def panel(figure, name):
    (found,) = [axes for axes in figure.axes if axes.get_label() == name]
    return found


def words(axes):
    return [text.get_text() for text in axes.texts]


def names(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def marks(axes, label):
    """Return the horizontal places of the marks with this legend entry, from top to bottom."""
    return list(line(axes, label).get_xdata())


def line(axes, label):
    (found,) = [line for line in axes.lines if line.get_label() == label]
    return found


def bars(axes, label):
    (found,) = [bars for bars in axes.containers if bars.get_label() == label]
    return [bar.get_width() for bar in found]


def near(values):
    return pytest.approx(list(values))


ALL = ["reconstruction", "alignment", "latents", "retrieval", "concepts", "probes"]


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A folder with every plot."""
    folder = tmp_path_factory.mktemp("run") / "plots"
    plots.draw(example(DEMO[:2]), folder)
    return folder


def test_every_plot_is_written_as_png_and_svg(demo):
    assert set(files(demo)) == {f"{name}.{suffix}" for name in ALL for suffix in ("png", "svg")}
    for name, content in files(demo).items():
        assert content.startswith(b"\x89PNG" if name.endswith("png") else b"<?xml")


def test_the_same_report_gives_the_same_bytes_whatever_the_users_settings(demo, tmp_path):
    with matplotlib.rc_context({"font.size": 20, "axes.grid": True, "savefig.dpi": 50, "svg.fonttype": "path"}):
        before = dict(matplotlib.rcParams)
        plots.draw(example(DEMO[:2]), tmp_path)
        assert dict(matplotlib.rcParams) == before
    assert files(tmp_path) == files(demo)


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        (example(DEMO[:2]), ALL),
        (example(labels=False), ["reconstruction", "latents", "retrieval"]),
        (example(DEMO[:1]), ["reconstruction", "latents", "concepts", "probes"]),
        (example(DEMO[:1], labels=False), ["reconstruction", "latents"]),
    ],
    ids=["two streams", "no labels", "one stream", "one stream, no labels"],
)
def test_only_what_the_report_has_is_drawn(report, expected):
    assert [name for name in ALL if drawn(name, report) is not None] == expected


def test_plots_of_an_earlier_evaluation_go_and_files_of_others_stay(tmp_path):
    for name in ("probes.png", "concepts.svg", "probes.json", "notes.png"):
        (tmp_path / name).write_text("from before")
    written = plots.draw(example(DEMO[:1], labels=False), tmp_path)
    assert [path.name for path in written] == ["reconstruction.png", "reconstruction.svg", "latents.png", "latents.svg"]
    assert set(files(tmp_path)) == {*(path.name for path in written), "probes.json", "notes.png"}


@pytest.mark.parametrize("streams", [DEMO[:1], DEMO, EIGHT], ids=len)
def test_reconstruction_has_a_row_per_source_and_a_column_per_target(streams):
    report, digits = example(streams), 2 if len(streams) == 8 else 3
    axes = drawn("reconstruction", report).axes
    shown = [report.joint.nmse, report.solo.nmse, report.joint.r2, report.solo.r2]
    for one, matrix in zip(axes, shown, strict=True):
        values = [matrix[source][target] for source in streams for target in streams]
        assert words(one) == [figures.number(value, digits) for value in values]
        assert one.get_ylim() == (len(streams), 0)  # from top to bottom, as the words
    assert names(axes[0].yaxis) == names(axes[2].xaxis) == list(streams)
    assert [one.get_title(loc="left") for one in axes] == [
        "NMSE, joint: lower is better",
        "NMSE, solo: lower is better",
        "R², joint: higher is better",
        "R², solo: higher is better",
    ]


def test_joint_and_solo_have_one_scale_of_colours():
    report = example()
    joint, solo, *_ = (axes.collections[0] for axes in drawn("reconstruction", report).axes)
    highest = max(value for row in report.solo.nmse.values() for value in row.values())
    assert joint.get_clim() == solo.get_clim() == (0, pytest.approx(highest))


def test_a_reconstruction_without_a_number_is_a_dash():
    report = example(DEMO[:2])
    report.joint.nmse[DEMO[0]][DEMO[1]] = None
    joint, solo, *_ = drawn("reconstruction", report).axes
    assert words(joint)[1] == figures.DASH
    assert figures.DASH not in words(solo)


def test_a_report_without_any_reconstruction_is_all_dashes():
    report = example(DEMO[:1])
    for way in (report.joint, report.solo):
        way.nmse[DEMO[0]][DEMO[0]] = way.r2[DEMO[0]][DEMO[0]] = None
    assert [words(axes) for axes in drawn("reconstruction", report).axes] == [[figures.DASH]] * 4


@pytest.mark.parametrize(("place", "over"), [(0, "all"), (1, "alive")])
def test_alignment_stands_beside_its_nulls_which_are_grey(place, over):
    report = example()
    axes = drawn("alignment", report).axes[place]
    curves = {
        "joint": "joint",
        "solo": "solo",
        "joint, shuffled pairs": "joint_null",
        "solo, shuffled pairs": "solo_null",
    }
    for label, kind in curves.items():
        curve = line(axes, label)
        assert list(curve.get_ydata()) == near(getattr(getattr(row, kind), over) for row in report.jaccard)
        assert (to_hex(curve.get_color()) == figures.GREY) == kind.endswith("null")
    assert axes.get_ylim()[0] == 0
    assert axes.get_ylim()[1] >= 1


def test_alignment_has_bars_as_long_as_its_intervals():
    report = example()
    axes = drawn("alignment", report).axes[0]
    spans = [tuple(line.get_ydata()) for line in axes.lines if line.get_label().startswith("_")]
    expected = [getattr(row, way).all_interval for way in ("joint", "solo") for row in report.jaccard]
    assert spans == expected


def test_an_alignment_without_a_number_is_a_dash_and_leaves_a_gap():
    report = example()
    bare = report.jaccard[3].solo.model_copy(update={"alive": None, "alive_interval": None})
    last = report.jaccard[3].model_copy(update={"solo": bare, "solo_null": bare})
    report = report.model_copy(update={"jaccard": (*report.jaccard[:3], last)})
    over_all, over_alive = drawn("alignment", report).axes
    assert words(over_all) == []
    assert words(over_alive) == [figures.DASH]
    assert math.isnan(line(over_alive, "solo").get_ydata()[3])


def test_bars_hold_every_latent_once():
    report = example()
    axes = panel(drawn("latents", report), "bars")
    joint, solo = zip(*([bar.get_width() for bar in part] for part in axes.containers), strict=True)
    assert sum(joint) == sum(solo) == LATENTS
    assert (joint[0], joint[-1]) == (report.joint.alive, report.joint.dead)
    assert (solo[0], solo[-1]) == (report.solo.alive, report.solo.dead)
    assert sorted(joint[1:-1]) == sorted(pattern.latents for pattern in report.joint.patterns)
    starts = [part[0].get_x() for part in axes.containers]
    assert starts == near(sum(joint[:number]) for number in range(len(joint)))


def test_the_table_below_names_the_segments_of_the_bars():
    segments = plots._segments(example())
    assert [one.words for one in segments] == [
        "alive in all",
        "all but effnet-lite0",  # of two streams, the largest first: 3 + 5, 3 + 4, 3 + 3 latents
        "all but effnet-lite2",
        "all but minilm",
        "only minilm",
        "only effnet-lite2",
        "only effnet-lite0",
        "dead",
    ]
    assert [one.counts for one in segments[1:-1]] == [[count, count] for count in (8, 7, 6, 5, 4, 3)]
    table = panel(drawn("latents", example()), "table")
    assert [text for text in words(table) if not text.isdigit()] == ["joint", "solo", *(one.words for one in segments)]
    numbers = [int(text) for text in words(table) if text.isdigit()]
    assert numbers == [count for one in segments for count in one.counts]


def test_of_many_sets_of_streams_the_largest_are_named_and_the_others_counted():
    report = example(EIGHT)
    segments = plots._segments(report)
    assert segments[-2].words == "94 other sets of streams"
    assert sum(one.counts[0] for one in segments) == sum(one.counts[1] for one in segments) == LATENTS


def test_a_set_that_only_one_way_of_encoding_has_counts_none_in_the_other():
    report = example(DEMO[:2])
    one = report.solo.model_copy(update={"patterns": report.solo.patterns[:1]})
    segments = plots._segments(report.model_copy(update={"solo": one}))
    assert [(one.words, one.counts) for one in segments[1:-1]] == [
        ("only effnet-lite0", [3, 3]),
        ("only effnet-lite2", [4, 0]),
    ]


def test_a_set_of_streams_is_described_the_shorter_way():
    assert plots._belonging(("a", "b"), "abcde") == "a and b"
    assert plots._belonging(("a", "b", "c"), "abcde") == "all but d, e"
    assert plots._belonging(("a",), "ab") == "only a"


def test_index_sets_stand_beside_those_of_shuffled_pairs():
    report = example()
    axes = panel(drawn("latents", report), "overlap")
    assert names(axes.yaxis) == ["effnet-lite0 and", "effnet-lite2", "minilm", "effnet-lite2 and", "minilm"]
    assert marks(axes, "solo") == near(pair.overlap for pair in report.sharing.overlaps)
    assert marks(axes, "shuffled pairs") == near(pair.null for pair in report.sharing.overlaps)
    assert list(line(axes, "solo").get_ydata()) == [1, 2, 4]
    assert line(axes, "solo").get_zorder() > line(axes, "shuffled pairs").get_zorder()


@pytest.mark.parametrize("streams", [DEMO[:2], DEMO, EIGHT[:5]], ids=["2 pairs", "6 pairs", "20 pairs"])
def test_retrieval_has_a_row_per_ordered_pair(streams):
    report = example(streams)
    axes = drawn("retrieval", report).axes
    for one, cut in zip(axes, ("r1", "r5", "r10"), strict=True):
        for kind, label in (
            ("latents", "latents"),
            ("reconstruction", "reconstruction"),
            ("cross", "cross-reconstruction"),
        ):
            assert marks(one, label) == near(getattr(getattr(pair, kind), cut) for pair in report.retrieval)
        raw = [value for value in marks(one, "raw features") if not math.isnan(value)]
        assert raw == near([getattr(ranks(0.3), cut)] * 2)
        (chance,) = [lines for lines in one.collections if lines.get_label() == "chance"]
        places = [segment[0][0] for segment in chance.get_segments()]
        assert places == near(getattr(pair.chance, cut) for pair in report.retrieval)
    expected = []
    for query in streams:
        expected += [f"with {query}", *(f"in {target}" for target in streams if target != query)]
    assert names(axes[0].yaxis) == expected
    rows = [round(place) for place in line(axes[0], "latents").get_ydata()]
    assert [expected[row] for row in rows] == [f"in {pair.target}" for pair in report.retrieval]


def test_retrieval_on_raw_features_is_left_out_where_no_two_streams_share_a_space():
    report = example()
    pairs = tuple(pair.model_copy(update={"raw": None}) for pair in report.retrieval)
    axes = drawn("retrieval", report.model_copy(update={"retrieval": pairs})).axes[0]
    assert "raw features" not in [line.get_label() for line in axes.lines]


def test_concepts_show_labels_names_and_the_share_of_frequent_ones():
    counts, shares = drawn("concepts", example()).axes
    assert bars(counts, "labels") == [10, 98, 411, 690]
    assert bars(counts, "of these, names of latents") == [10, 71, 163, 120]
    (effective,) = [bars for bars in counts.containers if "effective" in bars.get_label()]
    assert [bar.get_x() + bar.get_width() for bar in effective] == near([7.3, 41.2, 96.6, 80.1])
    assert counts.get_xlim()[0] == shares.get_xlim()[0] == 0
    assert words(counts)[2] == "163 of 411, effective 96.6"
    assert [bar.get_width() for bar in shares.containers[0]] == [0.31, 0.38, 0.44, 0.52]
    assert words(shares) == ["0.31", "0.38", "0.44", "0.52"]


def test_names_by_the_papers_rule_are_counted_stream_by_stream():
    names = {
        stream: PurityNames(named=1000 + place, taken=100 + place, effective=9.5, purity=0.5, lift=2.0)
        for place, stream in enumerate(DEMO)
    }
    report = example().model_copy(update={"concepts": PurityConcepts(rule="purity", streams=names, agreed=77)})
    figure = drawn("concepts", report)
    (axes,) = figure.axes
    assert bars(axes, "latents with a name") == [1000, 1001, 1002]
    assert bars(axes, "labels that are names") == [100, 101, 102]
    assert "77 of 4096" in figure.get_suptitle()
    assert axes.get_xlim()[0] == 0


def test_a_share_without_a_number_is_a_dash():
    report = example()
    first = report.concepts.depths[0].model_copy(update={"frequent_share": None})
    concepts = report.concepts.model_copy(update={"depths": (first, *report.concepts.depths[1:])})
    _, shares = drawn("concepts", report.model_copy(update={"concepts": concepts})).axes
    assert words(shares)[0] == figures.DASH


def test_the_best_single_latent_stands_against_knowing_nothing():
    report = example()
    axes = drawn("probes", report).axes[0]
    assert names(axes.yaxis) == list(DEMO)
    for way in ("joint", "solo"):
        assert marks(axes, way) == near(report.probes.single[way][name] for name in DEMO)
    assert marks(axes, "predicting 1/2, ln 2") == [math.log(2)] * 2
    assert axes.get_xlim()[0] == 0
    assert axes.get_xlim()[1] > math.log(2)


def test_features_are_read_in_a_panel_each_in_the_row_of_the_stream_that_they_are_of():
    report = example()
    _, *panels = drawn("probes", report).axes
    assert [axes.get_title(loc="left") for axes in panels] == [
        "raw",
        "latents",
        "reconstruction",
        "cross-reconstruction",
    ]
    for axes in panels:
        group = [one for one in report.probes.classifiers if one.features == axes.get_title(loc="left")]
        assert marks(axes, "linear") == near(one.linear for one in group)
        assert marks(axes, "MLP") == near(one.mlp for one in group)
        assert [DEMO[round(y)] for y in line(axes, "linear").get_ydata()] == [one.target for one in group]
        assert marks(axes, "chance") == [0.04] * 2


def test_without_classifiers_the_single_latents_are_alone():
    report = example()
    probes = report.probes.model_copy(update={"classifiers": ()})
    assert len(drawn("probes", report.model_copy(update={"probes": probes})).axes) == 1


def boxes(figure):
    """Return the boxes of words on the page, except rotated words, whose boxes are larger than the words."""
    with figures.look():
        figure.draw_without_rendering()
        texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text()]
        beyond = set(beyond_their_axis(figure))
        return [
            (text.get_text(), *text.get_window_extent().extents)
            for text in texts
            if text.get_rotation() in (0, 90) and text not in beyond
        ]


def beyond_their_axis(figure):
    """Return the tick labels outside the limits of an axis, which are not drawn."""
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            first, last = sorted(axis.get_view_interval())
            yield from (tick.label1 for tick in axis.get_major_ticks() if not first <= tick.get_loc() <= last)


@pytest.mark.parametrize("name", ALL)
def test_of_eight_streams_with_long_names_no_words_overlap_or_leave_the_paper(name):
    figure = drawn(name, example(EIGHT))
    found = boxes(figure)
    assert len(found) > 8
    for word, left, low, right, high in found:
        assert -1 < left < right < figure.bbox.width + 1, word
        assert -1 < low < high < figure.bbox.height + 1, word
    for one, other in combinations(found, 2):
        apart = one[3] < other[1] + 1 or other[3] < one[1] + 1 or one[4] < other[2] + 1 or other[4] < one[2] + 1
        assert apart, (one, other)


def test_a_name_is_shown_as_it_is_and_a_very_long_one_by_its_ends():
    assert figures.label("a_$x$") == r"a_\$x\$"
    assert figures.label("clip-img") == "clip-img"
    assert figures.label("clip-img[model=ViT-L-14,pretrained=x]") == "clip-img[m…rained=x]"
    assert len(figures.label("n" * 99)) == 20


@pytest.mark.parametrize(
    ("value", "shown"), [(None, "–"), (0.1234, "0.123"), (-0.0001, "0.000"), (-3.2, "-3.200"), (123456.0, "1e+05")]
)
def test_a_number_is_short(value, shown):
    assert figures.number(value) == shown


def test_a_full_disk_is_an_error_and_leaves_what_was_there(tmp_path):
    (tmp_path / "reconstruction.png").write_text("from before")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limit[1]))
    try:
        with pytest.raises(StorageError, match="no space left"):
            plots.draw(example(DEMO[:1]), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert files(tmp_path) == {"reconstruction.png": b"from before"}


def test_an_old_plot_that_cannot_be_removed_is_an_error(tmp_path):
    (tmp_path / "alignment.png").mkdir()
    with pytest.raises(StorageError, match=r"alignment\.png"):
        plots.draw(example(DEMO[:1]), tmp_path)
