"""Text from strangers' files reaches terminals and spreadsheets as text, and nothing else."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table

from sparc.cli import _fail
from sparc.cli.output import PlainConsole
from sparc.evaluation.latents import LatentTable
from sparc.storage.latent_names import LatentName, name_columns, read_latent_names
from sparc.system.cells import csv_cell, csv_text, without_controls

HOSTILE = "a\x1b]0;title\x07b\x1b[2Jc\x9b31md\re\u202ef"
SHOWN = "a]0;titleb[2Jc31mdef"


def test_a_terminal_gets_no_control_characters_of_a_text_and_keeps_the_colours_of_sparc():
    written = io.StringIO()
    console = PlainConsole(file=written, force_terminal=True, width=80, highlight=False)
    table = Table(HOSTILE, title=HOSTILE)
    table.add_row(HOSTILE)
    console.print(table)
    console.print(HOSTILE, markup=False, soft_wrap=True)
    console.print("[red]red[/red]")
    assert written.getvalue().count(SHOWN) == 4
    assert "\x1b[31mred\x1b[0m" in written.getvalue()
    assert not {"\x07", "\x9b", "\r", "\u202e"} & set(written.getvalue())
    assert "\x1b]" not in written.getvalue()
    assert "\x1b[2J" not in written.getvalue()


def test_an_error_of_a_library_reaches_the_terminal_without_control_characters(capsys):
    _fail(f"no such thing: {HOSTILE}", HOSTILE, 1)
    assert capsys.readouterr().err == f"error: no such thing: {SHOWN[:-2]} ef\nhint:  {SHOWN[:-2]} ef\n"


@pytest.mark.parametrize("text", ["👨\u200d👩", "می\u200cخواهم", "line\nline", "a\tb", "\u00a0", "é"])
def test_a_text_of_any_script_stays_whole(text):
    assert without_controls(text) == text


@pytest.mark.parametrize(
    ("name", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("+1", "'+1"),
        ("-cmd", "'-cmd"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\tx", "'\tx"),
        ("'=1", "''=1"),
        ("'tis", "'tis"),
        ("a=b", "a=b"),
        (HOSTILE, SHOWN),
    ],
)
def test_a_label_that_begins_as_a_formula_is_quoted_in_the_table_of_latents_and_read_back(tmp_path, name, cell):
    names = {0: LatentName(name, 1, -0.5, None, True)}
    columns = {"latent": [0], "=x": [-1.5], **name_columns(names, 1)}
    LatentTable(columns).write(tmp_path / "latents.csv")
    with (tmp_path / "latents.csv").open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["name"] == cell
    assert row["'=x"] == "-1.5"  # a number is no formula
    assert read_latent_names(tmp_path / "latents.csv")[0].label == without_controls(name)


@given(st.text())
def test_every_text_comes_back_from_its_cell(text):
    assert csv_text(str(csv_cell(text))) == without_controls(text)
    assert not str(csv_cell(text)).startswith(("=", "+", "-", "@", "\t", "\r"))
