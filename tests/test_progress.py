"""What the command line prints while it works: every step when it begins, each tenth of it, and its end."""

import io
import re
import time
from types import SimpleNamespace

import pytest
from rich.console import Console
from rich.progress import Progress

from sparc.cli import progress
from sparc.cli.progress import Bar, NoteColumn, Screen, SpeedColumn, rate


@pytest.fixture
def piped(monkeypatch):
    """A console whose output is no terminal, and steps that count as long after 20 ms."""
    monkeypatch.setattr(progress, "QUIET", 0.02)
    return Console(file=io.StringIO(), width=200)


def lines(console):
    return console.file.getvalue().splitlines()


def waited(console, count):
    """The lines, once there are `count`; fails after 10 s without them."""
    end = time.monotonic() + 10
    while len(lines(console)) < count:
        assert time.monotonic() < end, lines(console)
        time.sleep(0.01)
    return lines(console)


def test_a_long_step_is_printed_when_it_begins_and_then_again_with_its_seconds(piped):
    with Screen(piped) as screen:
        screen.loading("a[b]")
        assert lines(piped)[0] == "loading a[b] ..."
        again = waited(piped, 3)[1:]
    assert all(re.fullmatch(r"loading a\[b\] \.\.\.  \d+ s so far", line) for line in again)


def test_nothing_is_printed_again_after_a_step_is_over(piped):
    with Screen(piped) as screen:
        screen.doing("drawing x.png")
        screen.note("drawn")
        time.sleep(0.1)
        screen.doing("drawing y.png")
        screen.close()
        time.sleep(0.1)
    there = [line for line in lines(piped) if "so far" not in line]
    assert there == ["drawing x.png ...", "drawn", "drawing y.png ..."]
    assert lines(piped)[-1] == "drawing y.png ..."


def test_short_steps_without_a_line_of_their_own_are_printed_only_if_they_last(piped):
    with Screen(piped) as screen:
        screen.waiting("checking x")
        assert re.fullmatch(r"checking x \.\.\.  \d+ s so far", waited(piped, 1)[0])


def test_the_first_and_the_last_report_of_a_bar_are_printed_at_once_and_the_latest_one_while_it_is_quiet(piped):
    with Screen(piped) as screen:
        screen.progress("localize", "images", 1, 9)
        assert lines(piped) == ["localize  1/9 images"]
        screen.progress("localize", "images", 4, 9)
        assert waited(piped, 2)[1].startswith("localize  4/9 images")
        screen.progress("localize", "images", 9, 9)
        assert lines(piped)[-1].startswith("localize  9/9 images")
        there = lines(piped)
        time.sleep(0.1)
        assert lines(piped) == there


def test_the_parts_of_an_evaluation_are_printed_by_name_without_a_pace(monkeypatch, piped):
    monkeypatch.setattr(progress, "QUIET", 60)
    with Screen(piped) as screen:
        for done, part in enumerate(["codes", "retrieval", "probes"]):
            screen.progress("evaluate", "parts", done, 3, part)
        screen.progress("evaluate", "parts", 2, 3, "probes: a detail of the part")
        screen.progress("evaluate", "parts", 3, 3)
    assert lines(piped) == [
        "evaluate  0/3 parts  codes",
        "evaluate  1/3 parts  retrieval",
        "evaluate  2/3 parts  probes",
        "evaluate  3/3 parts",
    ]


def clocked(reports):
    """A task of rich that hears at each second how many of 100 parts are done."""
    now = [0.0]
    bars = Progress(get_time=lambda: now[0], disable=True)
    bars.add_task("", total=100)
    for now[0], done in reports:
        bars.update(bars.tasks[0].id, completed=done)
    return bars.tasks[0]


@pytest.mark.parametrize(
    ("reports", "shown"),
    [
        ([], ""),
        ([(1.0, 10)], ""),
        ([(1.0, 10), (2.0, 30), (3.0, 50)], "20 samples/s"),
        ([(10.0, 1), (40.0, 2)], "30 s each"),
        ([(1.0, 60), (2.0, 61)], "1.0 samples/s"),  # resumed: the first 60 were done before
    ],
)
def test_the_speed_is_that_of_the_reports_since_the_first(reports, shown):
    assert SpeedColumn("samples").render(clocked(reports)).plain == shown


def test_a_line_has_the_speed_and_the_time_left_of_the_bar(piped):
    bar = Bar(piped, "train", "steps")
    bar.update(1, 3)
    time.sleep(0.01)
    bar.update(2, 3, "loss 0.1")
    assert re.match(r"train  2/3 steps  [\d,]+ steps/s  0:00:01 left  loss 0.1", bar.line())


def test_an_extraction_is_named_before_its_first_batch_and_ends_with_its_bottleneck(piped):
    begun = SimpleNamespace(streams=("a", "b"), split="train", total=0, finished=False, skipped=())
    half = SimpleNamespace(**{**vars(begun), "done": 4, "total": 8, "spent": {"data": 1.0, "device": 3.0, "disk": 0.0}})
    ended = SimpleNamespace(**{**vars(half), "done": 8, "finished": True, "skipped": ("x",)})
    with Screen(piped) as screen:
        for one in (begun, half, ended):
            screen.extracting(one)
    there = [line for line in lines(piped) if "so far" not in line and "since" not in line]
    assert there == [
        "extract a, b (train split) ...",
        "extract a, b (train split)  4/8 samples  waiting: data 25%, device 75%, disk 0%",
        "  waiting: data 25%, device 75%, disk 0%; bottleneck: the backbones",
        "skipped 1 sample that could not be read in a, b: x",
    ]


def test_a_terminal_shows_a_live_bar_and_leaves_each_step_on_a_line():
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with Screen(console) as screen:
        screen.loading("PyTorch")
        screen.progress("localize", "images", 1, 2)
        screen.progress("localize", "images", 2, 2)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", console.file.getvalue())
    assert "loading PyTorch ..." in shown.split("localize")[0]
    assert "2/2 images" in shown


@pytest.mark.parametrize(
    ("speed", "shown"),
    [
        (224_992.3, "225,000 samples/s"),
        (1_234, "1,230 samples/s"),
        (99.96, "100 samples/s"),
        (31.4, "31 samples/s"),
        (1.26, "1.3 samples/s"),
        (0.5, "2 s each"),
    ],
)
def test_a_rate_has_no_more_digits_than_a_person_reads_and_its_unit(speed, shown):
    assert rate(speed, "samples") == shown


def test_a_log_has_a_line_for_each_tenth_of_the_work_however_many_reports_there_are(monkeypatch, piped):
    monkeypatch.setattr(progress, "QUIET", 60)
    monkeypatch.setattr(progress, "BETWEEN", 0)
    with Screen(piped) as screen:
        for done in range(1, 5001):
            screen.progress("train", "steps", done, 5000)
    counts = [int(re.match(r"train  (\d+)/5000 steps", line)[1]) for line in lines(piped)]
    assert counts == [1, *range(501, 5000, 500), 5000]


def test_short_work_has_two_lines_in_a_log(monkeypatch, piped):
    monkeypatch.setattr(progress, "QUIET", 60)
    with Screen(piped) as screen:
        for done in range(1, 101):
            screen.progress("train", "steps", done, 100)
    assert [line.split()[1] for line in lines(piped)] == ["1/100", "100/100"]


@pytest.mark.parametrize("width", [60, 80, 100, 120])
def test_counts_rates_and_times_stay_whole_in_any_terminal_and_notes_yield_whole(width):
    line = drawn(width, "loss 0.412  self 0.301  cross 0.501  waiting for data 30%")
    assert re.search(r"━+\S* +1000/1147 (samples )?225,000 samples/s (-:--:--|\d:\d\d:\d\d) left", line), line
    assert ("elapsed" in line) == (width >= 100)
    assert "…" not in line.split("1000/1147")[1]
    assert len(line) <= width


def drawn(width, note):
    """The bar of an extraction with a known speed, as a terminal of that width shows it."""
    console = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)
    bar = Bar(console, "extract photographs-of-birds, captions train", "samples")
    bar.update(1000, 1147, note)
    bar._progress.tasks[0].finished_speed = 224_992.3
    bar.stop()
    frames = re.split(r"[\r\n]", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", console.file.getvalue()))
    return [frame for frame in frames if "1000/1147" in frame][-1]


def test_what_yields_first_is_the_last_note():
    column = NoteColumn()
    task = SimpleNamespace(fields={"note": "loss 0.412  self 0.301  waiting for data 30%"})
    shown = []
    for column.room in (44, 43, 22, 21, 10, 9):
        shown.append(column.render(task).plain)
    assert shown == [
        "loss 0.412  self 0.301  waiting for data 30%",
        *["loss 0.412  self 0.301"] * 2,
        *["loss 0.412"] * 2,
        "",
    ]
