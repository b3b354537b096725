"""`evaluation.json`: written and read as one typed object, without loading anything heavy."""

import json
import subprocess
import sys

import pytest

from sparc.errors import CorruptFile, MissingData
from sparc.evaluation import HeldOut, evaluate
from sparc.evaluation.report import EvaluationFile


@pytest.fixture
def file(random_space, held):
    report = evaluate(random_space(), HeldOut(held.features, held.groups, held.matrix, held.taxonomy)).report
    return EvaluationFile(dataset="photos", split="test", random_weights=("a",), report=report)


def test_an_evaluation_is_read_as_it_was_written(file, tmp_path):
    file.write(tmp_path / "evaluation.json")
    assert EvaluationFile.read(tmp_path / "evaluation.json") == file
    content = json.loads((tmp_path / "evaluation.json").read_text())
    assert list(content) == ["dataset", "split", "random_weights", "report", "weights", "latents"]
    assert content == {
        "dataset": "photos",
        "split": "test",
        "random_weights": ["a"],
        "report": file.report.to_json(),
        "weights": None,
        "latents": None,
    }


def test_a_report_shows_its_size_and_what_it_has_in_one_line(file):
    shown = repr(file.report)
    assert shown.startswith(f"Report({file.report.samples} samples, streams a, b")
    assert "jaccard" in shown
    assert len(shown) < 250


def test_a_damaged_or_foreign_file_is_an_error_that_names_it_and_what_is_wrong(file, tmp_path):
    path = tmp_path / "run" / "evaluation.json"
    with pytest.raises(MissingData, match="the evaluation of a run is missing"):
        EvaluationFile.read(path)
    file.write(path)
    text = path.read_text()
    path.write_text(text[: len(text) // 2])
    with pytest.raises(CorruptFile, match=r"is not valid JSON: .*evaluation\.json"):
        EvaluationFile.read(path)
    content = json.loads(text)
    for wrong, place in (
        ({**content, "report": {**content["report"], "k": "many"}}, r"report\.k: "),
        ({key: value for key, value in content.items() if key != "split"}, "split: Field required"),
        ({**content, "mood": "good"}, "mood: Extra inputs"),
        ([1, 2], "Input should be"),
    ):
        path.write_text(json.dumps(wrong))
        with pytest.raises(CorruptFile, match=rf"not of this version's format: .*evaluation\.json \({place}") as raised:
            EvaluationFile.read(path)
        assert raised.value.hint == f"measure the run again: sparc evaluate {path.parent}"


def test_reading_an_evaluation_loads_no_torch_and_no_scipy():
    """And the check can fail: drawing loads NumPy."""
    heavy = "print(sorted({'torch', 'scipy', 'numpy', 'matplotlib', 'sklearn'} & {*sys.modules}))"

    def loaded(module):
        done = subprocess.run([sys.executable, "-c", f"import sys, {module}; {heavy}"], capture_output=True, text=True)
        return done.stdout.strip()

    assert loaded("sparc.evaluation.report") == "[]"
    assert "numpy" in loaded("sparc.plotting.figures")
