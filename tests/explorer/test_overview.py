"""Training curves and measures of a run, as the page shows them."""

import json

from hypothesis import given
from hypothesis import strategies as st

from sparc.evaluation.report import EvaluationFile
from sparc.explorer.overview import MOST_STEPS, curves, measures
from sparc.explorer.statements import significant, write_statement
from sparc.storage.run import Run

NUMBERS = st.floats(allow_nan=True, allow_infinity=True) | st.integers(-(10**9), 10**9)
KEYS = st.sampled_from(["loss", "self/a", "self/b", "cross/a->b", "cross/b->a", "é</script>", "x/y/z"])


@given(st.lists(st.dictionaries(KEYS, NUMBERS, max_size=5), max_size=6), st.booleans())
def test_what_a_training_logged_comes_back_whole_and_a_truncated_line_is_counted(tmp_path_factory, records, cut):
    run = Run(tmp_path_factory.getbasetemp())
    run.metrics.unlink(missing_ok=True)
    for step, record in enumerate(records):
        run.log({"step": step, "epoch": 0.5, **record})
    if cut:
        with run.metrics.open("a") as file:
            file.write('{"step": 7, "lo')
    found, damaged = curves(run.metrics)
    assert damaged == cut
    series = {(curve["name"], one["name"]): one["values"] for curve in found for one in curve["series"]}
    wanted = {
        (key.split("/")[0], key.split("/", 1)[-1].replace("->", " → ")): [
            significant(float(record[key])) if key in record else None for record in records
        ]
        for record in records
        for key in record
    }
    assert series == wanted
    assert all(curve["x"] == list(range(len(records))) for curve in found)


def test_lines_that_no_parser_and_no_number_takes_are_damaged_and_odd_names_are_written(tmp_path):
    run = Run(tmp_path)
    lines = ["[" * 9000, '{"step": Infinity, "loss": 1}', '{"step": NaN}', '{"step": 3, "\\ud800/a": 0.5}']
    run.metrics.write_text("\n".join(lines) + "\n")
    found, damaged = curves(run.metrics)
    assert damaged == 3
    assert [curve["x"] for curve in found] == [[3]]
    write_statement(tmp_path, "run", found)
    assert "\ufffd" in (tmp_path / "run.js").read_text(encoding="utf-8")


def test_a_long_log_is_thinned_evenly(tmp_path):
    run = Run(tmp_path)
    run.metrics.write_text("".join(f'{{"step": {step}, "loss": {step}}}\n' for step in range(3 * MOST_STEPS)))
    ((curve,), _) = curves(run.metrics)
    assert curve["x"] == list(range(0, 3 * MOST_STEPS, 3))
    assert curve["series"][0]["values"][:3] == [0, 3, 6]


def test_held_out_losses_share_the_chart_of_their_losses_and_a_constant_rate_has_none(tmp_path):
    run = Run(tmp_path)
    run.log({"step": 20, "epoch": 1.0, "held-out/loss": 3, "held-out/cross/a->b": 4})
    run.log({"step": 50, "epoch": 2.5, "loss": 2, "cross/a->b": 5, "dead/a": 7, "lr": 0.1})
    found = {curve["name"]: curve for curve in curves(run.metrics)[0]}
    assert list(found) == ["loss", "cross", "dead"]
    assert [(one["name"], one["values"]) for one in found["loss"]["series"]] == [
        ("loss", [None, 2]),
        ("loss, held out", [3, None]),
    ]
    assert [one["name"] for one in found["cross"]["series"]] == ["a → b", "a → b, held out"]
    assert found["dead"]["x"] == [20, 50]


def test_a_learning_rate_that_changes_has_a_chart(tmp_path):
    run = Run(tmp_path)
    for step, rate in ((20, 0.1), (50, 0.1), (80, 0.05)):
        run.log({"step": step, "epoch": 1.0, "loss": 2, "lr": rate})
    found = {curve["name"]: curve for curve in curves(run.metrics)[0]}
    assert [one["values"] for one in found["lr"]["series"]] == [[0.1, 0.1, 0.05]]
    assert found["lr"]["label"] == "Learning rate"


def test_without_a_log_or_a_report_there_is_nothing_to_show(tmp_path):
    assert curves(tmp_path / "metrics.jsonl") == ([], 0)
    assert measures(None) == []


def codes(value):
    nmse = {"a": {"a": value, "b": None}, "b": {"a": 0.5, "b": 0.25}}
    none = {"a": 0, "b": 0}
    return {"nmse": nmse, "r2": nmse, "l0": none, "alive": 7, "dead": 1, "mixed": 0, "patterns": [], "dead_in": none}


def test_every_measure_has_its_value_its_null_and_a_sentence(tmp_path):
    both = {"all": 0.3, "alive": 0.4, "all_interval": None, "alive_interval": None}
    depth = {"depth": 2, "solo": both, "solo_null": {**both, "all": 0.1}}
    depth |= {"joint": {**both, "all": 0.9}, "joint_null": {**both, "all": 0.7}}
    report = {"samples": 9, "streams": ["a", "b"], "n_latents": 8, "k": 2, "selection": "global"}
    report |= {"joint": codes(0.2), "solo": codes(0.1), "jaccard": [depth]}
    path = tmp_path / "evaluation.json"
    path.write_text(json.dumps({"dataset": "d", "split": "test", "random_weights": [], "report": report}))
    found = {one["name"]: one for one in measures(EvaluationFile.read(path).report)}
    assert (found["alive"]["value"], found["dead"]["value"]) == (7, 1)
    assert (found["solo nmse a>a"]["value"], found["joint nmse a>a"]["value"]) == (0.1, 0.2)
    assert found["solo nmse a>b"]["value"] is None
    for kind, numbers in (("solo", (0.3, 0.1)), ("joint", (0.9, 0.7))):
        jaccard = found[f"{kind} jaccard 2"]
        assert (jaccard["value"], jaccard["null"]) == numbers
        assert jaccard["label"] == f"Jaccard at depth 2, {kind}"
        assert f"the {kind} null is" in jaccard["read"]
    assert found["dead"]["better"] == found["solo nmse a>a"]["better"] == "lower"
    assert all(one["read"].endswith(".") for one in found.values())
