"""Lines of text: they break at words on a terminal, stay whole in a pipe, and errors name the run that was meant."""

import io
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pydantic import BaseModel
from rich.console import Console
from rich.text import Text

import sparc
from sparc.cli import bench
from sparc.cli.output import say
from sparc.errors import InvalidConfig, MissingData, counted
from sparc.session.files import check_output
from sparc.session.listener import Listener
from sparc.storage.nearby import near_run
from sparc.storage.run import Run
from sparc.system.brief import Brief
from sparc.system.devices import no_device

LONG = "  ok       cache: a-word another /a/path/that/is/longer/than/the/terminal end"


def said(width, *, terminal):
    console = Console(file=io.StringIO(), width=width, force_terminal=terminal, no_color=True, highlight=False)
    say(console, LONG, indent=3)
    return console.file.getvalue().splitlines()


def test_a_long_line_breaks_at_words_on_a_terminal_and_not_in_a_pipe():
    assert said(30, terminal=False) == [LONG]
    assert said(200, terminal=True) == [LONG]
    assert said(30, terminal=True) == [
        "  ok       cache: a-word",
        "     another",
        "     /a/path/that/is/longer/than/the/terminal",
        "     end",
    ]


def test_a_number_comes_with_its_thing_in_singular_or_plural():
    assert [counted(1, "sample"), counted(0, "sample"), counted(1200, "entry", "entries")] == [
        "1 sample",
        "0 samples",
        "1,200 entries",
    ]


def run_at(path):
    path.mkdir(parents=True)
    (path / "provenance.json").write_text("{}")


def test_a_path_without_a_run_names_the_run_that_was_meant(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert near_run("photos", "give one") == "give one"
    run_at(Path("runs/openmoji"))
    run_at(Path("spaces/coco"))
    assert near_run("runs/openmojis", "give one") == "did you mean runs/openmoji?"
    assert near_run("openmoji", "give one") == "did you mean runs/openmoji?"
    assert near_run("spaces/cocoa", "give one") == "did you mean spaces/coco?"
    assert near_run("runs", "give one") == "runs holds runs: give one, such as runs/openmoji"
    assert near_run("zzz", "give one") == "give one; there are runs/openmoji"
    with pytest.raises(MissingData, match="no run at openmoj") as error:
        Run.open(Path("openmoj"))
    assert error.value.hint == "did you mean runs/openmoji?"
    for verb in (sparc.load, sparc.complete, lambda path: sparc.detach(path, "a")):
        with pytest.raises(MissingData) as error:
            verb("openmoj")
        assert error.value.hint == "did you mean runs/openmoji?"


class Heard(Listener):
    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


def test_a_result_is_never_written_over_an_input_and_says_what_it_replaces(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("photo.png").touch()
    heard = Heard()
    check_output("new.png", ["photo.png", "a red bus"], heard)
    assert heard.notes == []
    check_output("there/new.png", "photo.png", heard)
    check_output("photo.png", ["other.png", "x" * 5000], heard)
    assert heard.notes == ["the folder there will be made", "photo.png is there, and will be replaced"]
    for inputs in (["./photo.png"], Path("photo.png"), [tmp_path / "photo.png"]):
        with pytest.raises(InvalidConfig, match=r"photo.png is one of the inputs, and would be replaced"):
            check_output("photo.png", inputs, heard)


def test_a_device_that_is_not_there_is_said_in_plain_words():
    assert no_device("gpu") == "'gpu' is not available: there is no device of this name"
    assert no_device("cuda:77").startswith("'cuda:77' is not available: ")
    assert "Expected one of" not in no_device("foo:1")


@dataclass(frozen=True, repr=False)
class Pair(Brief):
    name: str
    score: float
    many: tuple[int, ...] = ()
    by_name: dict[str, int] = field(default_factory=dict)
    secret: int = field(default=0, repr=False)


class Section(Brief, BaseModel):
    pair: Pair | None = None
    left_out: int = 0


def test_results_show_themselves_in_one_line():
    assert repr(Pair("a", 1 / 3)) == "Pair(name='a', score=0.3333, many=(), by_name={})"
    assert repr(Pair("x" * 100, 1.0, tuple(range(500)), dict.fromkeys("abcd", 1))) == (
        f"Pair(name='{'x' * 59}..., score=1, many=<500>, by_name=<4: a, b, c>)"
    )
    assert str(Section(pair=Pair("a" * 50, 1.0))) == "Section(pair=<Pair>)"


def test_measured_numbers_are_rounded_to_what_they_tell():
    shown = [bench._rounded(one) for one in (9.5617, 38.449, 1234.56, 0.24913, 615583744, "64,64", 0)]
    assert shown == ["9.56", "38.4", "1,235", "0.249", "615,583,744", "64,64", "0"]


WIDTHS = """
import fcntl, struct, sys, termios
from sparc.cli import main
for width in (60, 80, 100, 120):
    fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
    for words in (["info", "run"], ["doctor"], ["plugins", "list"]):
        print(f"=== {width}", flush=True)
        try:
            main(words)
        except SystemExit:
            pass
"""


def on_terminal(code, environment, folder):
    """Return what a program prints on a pseudo-terminal."""
    import pty
    import subprocess
    import sys

    leader, follower = pty.openpty()
    environment = {name: value for name, value in environment.items() if name != "COLUMNS"} | {"NO_COLOR": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=follower, stderr=follower, stdin=follower, env=environment, cwd=folder
    )
    os.close(follower)
    pieces = []
    try:
        while piece := os.read(leader, 1 << 16):
            pieces.append(piece)
    except OSError:  # the other end is closed
        pass
    os.close(leader)
    assert process.wait() == 0
    return b"".join(pieces).decode()


def test_commands_that_describe_fit_terminals_of_every_width(trained_once, environment, tmp_path):
    shutil.copytree(trained_once / "run", tmp_path / "run")
    text = on_terminal(WIDTHS, environment, tmp_path)
    assert text.count("quality: NMSE 0.") == 4
    assert text.index("state: trained and evaluated; 32 latents, 4 kept") < text.index("recipe:")
    for part in text.split("=== ")[1:]:
        width, *lines = part.splitlines()
        for line in lines:
            plain = Text.from_ansi(line.split("\r")[-1]).plain.rstrip()
            words = plain.split()
            assert len(plain) <= int(width) or len(words) == 1, (width, plain)
