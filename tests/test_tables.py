"""Tables of numbers at any width of the terminal."""

import io
import os
import subprocess
import sys

import pytest
from rich.console import Console

from sparc.cli.tables.layout import NumberTable


def shown(table, width):
    console = Console(file=io.StringIO(), width=width)
    console.print(table)
    return console.file.getvalue()


@pytest.fixture
def table():
    table = NumberTable("Overlap", "from → to", "all\njoint", "\nsolo", "alive\njoint")
    table.add_row("a-long-name → another-long-name", "0.123±.045", "0.678", "0.901")
    return table


@pytest.mark.parametrize("width", [200, 60, 50, 40, 20])
def test_no_digit_is_cut_at_any_width(table, width):
    text = shown(table, width)
    for number in ("0.123±.045", "0.678", "0.901"):
        assert number in text
    assert "…" not in text


def test_names_wrap_before_a_table_is_turned(table):
    assert "another-long" not in shown(table, 52).splitlines()[3]
    assert shown(table, 30).splitlines() == [
        "Overlap",
        "a-long-name → ",
        "another-long-name",
        "  all joint    0.123±.045",
        "  all solo     0.678",
        "  alive joint  0.901",
    ]


def test_tables_in_a_pipe_are_as_wide_as_they_are():
    code = """
from sparc.cli.progress import console
from sparc.cli.tables.layout import NumberTable
table = NumberTable(None, "name", "number")
table.add_row("n" * 150, "0.5")
console.print(table)
"""
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert "n" * 150 + "     0.5" in done.stdout
