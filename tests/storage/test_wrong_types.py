"""Any value of any type in any place of `provenance.json` and `evaluation.json` is read, or is an error of sparc."""

import copy
import json
import random

import pytest

from sparc.cli.tables.evaluation import print_evaluation
from sparc.errors import SparcError
from sparc.evaluation import HeldOut, evaluate
from sparc.evaluation.report import EvaluationFile
from sparc.storage.run import Run
from tests.evaluation.conftest import held, random_space  # noqa: F401
from tests.runs import provenance

VALUES = (
    None,
    True,
    -1,
    0,
    0.5,
    1e308,
    2**63,
    10**30,
    "",
    "\0\x1b[31m",
    "a\nb",
    "\ud800",
    [],
    [[[]]],
    {},
    {"a": {"b": []}},
)
TRIALS = 300


@pytest.fixture
def run(tmp_path, random_space, held):  # noqa: F811
    streams = {"a": {"backbone": "synthetic", "params": {"x": 1}, "weights": "w", "plugin": "p 1"}}
    features, options = {"a": ["0", "1"]}, {"dataset": "openmoji", "stream": ["synthetic[width=3]"], "k": 4}
    run = Run.create(tmp_path / "run")
    run.write_provenance(provenance(streams=streams, features=features, options=options, versions={"torch": "2"}))
    report = evaluate(random_space(), HeldOut(held.features, held.groups, held.matrix, held.taxonomy)).report
    EvaluationFile(dataset="photos", split="test", random_weights=("a",), report=report).write(run.evaluation)
    return run


def places(content, above=()):
    """Every place in parsed JSON, as the keys and numbers that lead to it."""
    yield above
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in items:
        yield from places(value, (*above, key))


def changed(content, place, draw):
    """Return the content with the value at a place replaced, removed, or renamed."""
    if not place:
        return draw.choice(VALUES)
    content = copy.deepcopy(content)
    inner = content
    for key in place[:-1]:
        inner = inner[key]
    kind = draw.random()
    if kind < 0.8:
        inner[place[-1]] = draw.choice(VALUES)
    elif kind < 0.9:
        del inner[place[-1]]
    elif isinstance(inner, dict):
        inner[str(draw.choice(VALUES))] = inner.pop(place[-1])
    else:
        inner.reverse()
    return content


def read_provenance(run):
    found = Run.open(run.path).provenance()
    assert all(stream.alias for stream in found.options.streams)


def read_evaluation(run):
    EvaluationFile.read(run.evaluation)
    if random.random() < 0.1:  # a table takes longer than a file
        print_evaluation(run)


@pytest.mark.parametrize(("name", "read"), [("provenance", read_provenance), ("evaluation", read_evaluation)])
def test_wrong_types_are_errors_that_name_the_file(run, name, read, capsys):
    path = run.path / f"{name}.json"
    whole = json.loads(path.read_text())
    read(run)
    every, draw, refused = list(places(whole)), random.Random(name), []
    for place in draw.choices(every, k=TRIALS):
        path.write_text(json.dumps(changed(whole, place, draw)))
        try:
            read(run)
        except SparcError as error:
            refused.append(error)
    assert TRIALS / 3 < len(refused) < TRIALS
    for error in refused:
        assert f"{name}.json" in error.message, error.message
        assert "\n" not in error.message + error.hint
    assert "\x1b" not in capsys.readouterr().out
