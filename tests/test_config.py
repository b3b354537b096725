"""Options as users write them, and the errors for invalid ones."""

import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict

from sparc.config import PluginRef, RunConfig, SpaceConfig, TrainingConfig, validated
from sparc.errors import InvalidConfig, MissingData, PluginError, UnknownName
from sparc.plugins.contracts import DatasetSpec, Taxonomy
from sparc.plugins.registry import Registry
from sparc.session import read_options
from sparc.session.options import resolved

ROOT = Path(__file__).parent.parent


def ref(text):
    return PluginRef.model_validate(PluginRef.parse(text))


@pytest.mark.parametrize("name", ["a/b", "..", "a:b", "aux", "con.x", "a ", "a.", "a?", "NUL", ".hidden"])
def test_a_stream_has_a_name_that_can_name_a_folder_on_every_system(name):
    with pytest.raises(InvalidConfig, match="expected a stream's name that can name a folder"):
        RunConfig(stream=[{"name": "timm", "alias": name}])


@pytest.mark.parametrize("names", [("a", "A"), ("Zo\u00eb", "Zoe\u0308"), ("straße", "STRASSE")])
def test_streams_whose_names_are_one_on_some_system_are_refused(names):
    with pytest.raises(InvalidConfig, match="rename one"):
        RunConfig(stream=[{"name": "timm", "alias": name} for name in names])


@pytest.mark.parametrize("name", ["dinov2", "ViT-L-14", "clip.img", "左目", "a b", "auxiliary", "com"])
def test_other_names_are_kept(name):
    assert RunConfig(stream=[{"name": "timm", "alias": name}]).streams[0].alias == name


@pytest.mark.parametrize(
    ("text", "name", "alias", "params"),
    [
        ("clip-img", "clip-img", "clip-img", {}),
        ("clip-img[model=ViT-L-14]", "clip-img", "clip-img", {"model": "ViT-L-14"}),
        ("a=timm[model=m, weights=x.pt]", "timm", "a", {"model": "m", "weights": "x.pt"}),
        ("timm[weights='odd, [name].pt',model=m]", "timm", "timm", {"weights": "odd, [name].pt", "model": "m"}),
        ('timm[weights="it\'s.pt"]', "timm", "timm", {"weights": "it's.pt"}),
        ({"name": "timm", "alias": "b", "model": "m"}, "timm", "b", {"model": "m"}),
    ],
)
def test_a_stream_is_written_as_name_and_parameters(text, name, alias, params):
    assert ref(text) == PluginRef(name=name, alias=alias, params=params)


@pytest.mark.parametrize("text", ["", "clip[", "clip[model]", "clip[model=a", "[model=a]", {"model": "a"}])
def test_a_malformed_stream_is_refused_with_the_expected_form(text):
    with pytest.raises(ValueError, match="expected"):
        ref(text)


def test_two_streams_of_one_name_are_refused_with_a_hint_to_rename_one():
    with pytest.raises(InvalidConfig, match=r"'timm' twice; rename one, 'other=timm\[...\]'"):
        validated(RunConfig, {"dataset": "d", "stream": ["timm[model=a]", "timm[model=b]"]})


@pytest.mark.parametrize("one", ["timm[model=a]", {"name": "timm", "model": "a"}])
def test_one_stream_needs_no_list(one):
    options = validated(RunConfig, {"dataset": "d", "stream": one})
    assert options.streams == (PluginRef(name="timm", alias="timm", params={"model": "a"}),)


def test_a_folder_is_no_config_file(tmp_path):
    with pytest.raises(InvalidConfig, match="cannot be read: Is a directory"):
        read_options(tmp_path)


def test_k_above_n_latents_is_refused():
    with pytest.raises(InvalidConfig, match="k: expected at most n_latents, 8, found 9"):
        validated(SpaceConfig, {"streams": {"a": 3}, "n_latents": 8, "k": 9})


@pytest.mark.parametrize("n_latents", ["n-latents", "n_latents"])
def test_k_above_n_latents_is_said_beside_all_other_wrong_options(n_latents):
    for make in (lambda options: validated(RunConfig, options), lambda options: RunConfig(**options)):
        with pytest.raises(InvalidConfig) as caught:
            make({n_latents: 100, "k": 900, "epochs": 0, "lr": -1.0})
        assert caught.value.message == (
            "epochs: expected a whole number from 1, found 0; lr: expected a number above 0, found -1.0; "
            "k: expected at most n_latents, 100, found 900"
        )
    with pytest.raises(InvalidConfig, match="found 0; k: expected at most n_latents, 8192, found 9000"):
        validated(RunConfig, {"k": 9000, "epochs": 0})


@pytest.mark.parametrize("n_latents", ["many", -1, None])
def test_k_is_not_compared_with_a_wrong_number_of_latents(n_latents):
    with pytest.raises(InvalidConfig) as caught:
        validated(RunConfig, {"k": 9000, "n-latents": n_latents})
    assert "expected at most" not in caught.value.message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n-latents": "many"}, "n_latents: expected a whole number from 1, found 'many'"),
        ({"selection": "both"}, "selection: expected global or local, found 'both'"),
        ({"n_latent": 8}, "unknown parameter 'n_latent'"),
        ({"lambda": float("nan")}, "lambda_: expected a number from 0, found nan"),
    ],
)
def test_an_invalid_option_is_named_with_its_value(options, message):
    with pytest.raises(InvalidConfig, match=message):
        validated(RunConfig, {"dataset": "d", **options})


@pytest.mark.parametrize(("key", "value"), [("epochs", 0), ("lr", -1.0), ("batch_size", 0), ("lambda", -0.1)])
def test_training_settings_out_of_range_are_refused(key, value):
    with pytest.raises(
        InvalidConfig,
        match=f"{key.replace('lambda', 'lambda_')}: expected a (whole )?number (from|above) [01], found {value}",
    ):
        validated(TrainingConfig, {key: value})


def test_the_defaults_are_the_papers():
    training, space = TrainingConfig(), SpaceConfig(streams={"a": 1})
    assert (space.n_latents, space.k, space.selection) == (8192, 64, "global")
    assert (training.epochs, training.batch_size, training.lr, training.lambda_) == (50, 256, 1e-4, 1.0)
    assert (training.k_aux, training.aux_weight, training.dead_after) == (64, 1 / 32, 256_000)


def test_a_config_file_holds_options_by_their_names(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text('stream = ["a", {name = "timm", model = "m"}]\nlambda = 0.5\nn-latents = 64\n')
    assert read_options(path) == {"stream": ["a", {"name": "timm", "model": "m"}], "lambda": 0.5, "n-latents": 64}


@pytest.mark.parametrize(
    ("content", "message", "hint"),
    [
        ("n-latent = 3", "unknown key 'n-latent'", "did you mean 'n-latents'?"),
        ("k = ", "not valid TOML", "fix that line"),
        (None, "config file not found", "--config"),
    ],
)
def test_an_unreadable_config_file_is_an_error_with_its_reason(tmp_path, content, message, hint):
    path = tmp_path / "run.toml"
    if content is not None:
        path.write_text(content)
    with pytest.raises((InvalidConfig, MissingData), match=message) as error:
        read_options(path)
    assert hint in error.value.hint


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
def test_a_config_file_may_come_from_any_editor(tmp_path, encoding, end):
    path = tmp_path / "run.toml"
    path.write_bytes(f'# {encoding}{end}data-root = "Zo\u00eb"{end}k = 3{end}'.encode(encoding))
    assert read_options(path) == {"data-root": "Zo\u00eb", "k": 3}


def test_a_config_file_of_another_encoding_is_named_by_its_line(tmp_path):
    path = tmp_path / "run.toml"
    path.write_bytes('k = 3\ndata-root = "Zo\u00eb"\n'.encode("latin-1"))
    with pytest.raises(InvalidConfig, match=r"run.toml is not UTF-8 text: line 2, byte 16 is 0xeb"):
        read_options(path)


@pytest.fixture
def registry():
    defaults = {"stream": ["tiny"], "n-latents": 32, "k": 4, "epochs": 7}
    dataset = DatasetSpec("toys", open=lambda params, split: None, defaults=defaults)
    return Registry(datasets={"toys": dataset, "plain": DatasetSpec("plain", open=lambda params, split: None)})


def test_the_command_line_wins_over_the_file_the_file_over_the_dataset_the_dataset_over_the_paper(registry, tmp_path):
    path = tmp_path / "run.toml"
    path.write_text('dataset = "toys"\nk = 5\nlr = 0.5\n')
    options = resolved({"lr": 0.25, "k": None, "stream": []}, registry, read_options(path))
    assert (options.lr, options.k, options.n_latents, options.batch_size) == (0.25, 5, 32, 256)
    assert [stream.name for stream in options.streams] == ["tiny"]
    assert resolved({"dataset": "plain"}, registry).epochs == 50


def test_options_are_checked_before_anything_is_extracted(registry):
    with pytest.raises(InvalidConfig, match="k: expected at most n_latents, 32, found 33"):
        resolved({"dataset": "toys", "k": 33}, registry).checked()
    with pytest.raises(UnknownName, match="no plugin offers a dataset named 'toy'") as error:
        resolved({"dataset": "toy"}, registry)
    assert "did you mean 'toys'?" in error.value.hint


def test_defaults_of_a_dataset_that_are_not_options_are_a_plugin_error():
    bad = DatasetSpec("toys", open=lambda params, split: None, defaults={"n_latents": 3})
    with pytest.raises(PluginError, match="defaults of dataset 'toys' are wrong: unknown parameter 'n_latents'"):
        resolved({"dataset": "toys"}, Registry(datasets={"toys": bad}))


def test_a_label_with_several_parents_counts_at_its_deepest_occurrence():
    """thing > animal > pet; dog is a thing, an animal and a pet, so its depth is 3, below pet."""
    taxonomy = Taxonomy(
        {"dog": ["thing", "pet", "animal"], "thing": [], "animal": ["thing"], "pet": ["animal"], "toy": ["thing"]}
    )
    assert taxonomy.labels == ("dog", "thing", "animal", "pet", "toy")
    assert [taxonomy.depth(label) for label in taxonomy.labels] == [3, 0, 1, 2, 1]
    assert [taxonomy.lift("dog", depth) for depth in range(5)] == ["thing", "animal", "pet", "dog", "dog"]
    assert taxonomy.lift("toy", 3) == "toy"
    assert taxonomy.max_depth == 3


def test_a_label_follows_the_first_of_equally_deep_parents():
    taxonomy = Taxonomy({"a": [], "b": [], "ab": ["b", "a"]})
    assert taxonomy.lift("ab", 0) == "b"


def test_a_taxonomy_with_a_cycle_or_an_unknown_parent_is_refused():
    with pytest.raises(ValueError, match="cycle: a, b"):
        Taxonomy({"a": ["b"], "b": ["a"], "c": []})
    with pytest.raises(ValueError, match="'a' has the parent 'z'"):
        Taxonomy({"a": ["z"]})


def test_the_error_of_a_missing_parameter_says_how_to_give_it():
    class Wanted(BaseModel):
        model_config = ConfigDict(extra="forbid")
        root: str
        model: str

    with pytest.raises(InvalidConfig, match="'some': expected 'root', found nothing") as error:
        validated(Wanted, {"model": "m"}, what="'some'")
    assert error.value.hint == "--data-root FOLDER, or NAME[root=FOLDER]"
    with pytest.raises(InvalidConfig, match="expected 'model', found nothing") as error:
        validated(Wanted, {"root": "r"})
    assert "NAME[model=...]" in error.value.hint
    with pytest.raises(InvalidConfig, match="unknown parameter 'modle'") as error:
        validated(Wanted, {"root": "r", "modle": "m"})
    assert "did you mean 'model'?" in error.value.hint


ONE_MORE = """
import contextlib, inspect, io, os, sys
from pathlib import Path
from sparc.cli import main

def answer(*words):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), contextlib.suppress(SystemExit):
        main([*words])
    return out.getvalue() + err.getvalue()

refused = "momentum: expected a number from 0, found -"
assert refused in answer("train", "--momentum", "-1")
Path("run.toml").write_text("momentum = -2")
assert refused in answer("train", "--config", "run.toml")
assert refused in answer("ablate", "--grid", "momentum=0.5,-1")
assert "momentum" in answer("ablate", "--grid", "momentums=1")
import sparc
try:
    sparc.train(momentum=-3)
except sparc.InvalidConfig as error:
    assert refused in error.message
sys.path.insert(0, sys.argv[1])
import signatures, cli_reference
assert "    momentum: float\\n" in signatures.page()
row = "| `--momentum` | `NUMBER` | Momentum of the optimiser. Default: 0.9. |"
assert cli_reference.page().count(row) == 4, cli_reference.page()
from sparc.config import RunConfig
assert RunConfig().training().momentum == 0.9
"""


def test_an_option_is_added_in_one_place(tmp_path):
    """Add a field in a copy of sparc: command line, file, function, ablation, signature and reference all have it."""
    shutil.copytree(ROOT / "sparc", tmp_path / "sparc", ignore=shutil.ignore_patterns("__pycache__"))
    declared = tmp_path / "sparc" / "config" / "options.py"
    before = "    epochs: int = option("
    one_more = '    momentum: float = option(0.9, "Momentum of the optimiser.", ge=0)\n'
    assert declared.read_text().count(before) == 1
    declared.write_text(declared.read_text().replace(before, one_more + before))
    (tmp_path / "try.py").write_text(ONE_MORE)
    command = [sys.executable, "try.py", ROOT / "docs" / "tools"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "COLUMNS": "200"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_typed_arguments_of_the_verbs_match_the_options():
    namespace = runpy.run_path(str(ROOT / "docs" / "tools" / "signatures.py"))
    assert namespace["FILE"].read_text() == namespace["page"](), "run: python docs/tools/signatures.py"


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        ({"epochs": 0}, "epochs: expected a whole number from 1, found 0", "as in epochs=50; or leave epochs out"),
        (
            {"epochs": 0, "k": -1},
            "k: expected a whole number from 1, found -1; epochs: expected a whole number from 1, found 0",
            "as in k=64; or leave k out, and it fits the number of samples; as in epochs=50",
        ),
        ({"epoch": 3}, "unknown parameter 'epoch'", "did you mean 'epochs'? known: stream, dataset, "),
    ],
)
def test_a_configuration_made_in_python_names_all_wrong_options_as_python_does(options, message, hint):
    with pytest.raises(InvalidConfig) as caught:
        RunConfig(**options)
    assert caught.value.message == message
    assert caught.value.hint.startswith(hint)


def test_the_shape_of_a_space_is_checked_where_it_is_made():
    with pytest.raises(InvalidConfig, match="k: expected at most n_latents, 2, found 4"):
        SpaceConfig(n_latents=2, k=4, streams={"a": 1})


def test_an_error_names_the_place_that_it_came_from_and_all_options():
    with pytest.raises(InvalidConfig) as caught:
        validated(TrainingConfig, {"epochs": 0, "lr": "x"}, what="run.toml")
    first, second = caught.value.message.split("; ")
    assert first == "run.toml: epochs: expected a whole number from 1, found 0"
    assert second == "lr: expected a number above 0, found 'x'"
    assert caught.value.hint.startswith("as in epochs = 50; ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs = 1\nepochs = 2\nk = 3", "the key epochs is there twice, again in line 2"),
        ("k = 3\nepochs = 1\n\nepochs = 2\n\n", "the key epochs is there twice, again in line 4"),
        ("[dataset]\nname = 'a'\n[dataset]\nname = 'b'", r"the key \[dataset\] is there twice, again in line 3"),
        ("dataset = {name = 'a', name = 'b'}", "the key name is there twice, again in line 1"),
    ],
)
def test_a_key_that_is_there_twice_is_named_with_its_line(tmp_path, text, message):
    path = tmp_path / "run.toml"
    path.write_text(text)
    with pytest.raises(InvalidConfig, match=message):
        read_options(path)


@pytest.mark.parametrize("written", [r"C:\Users\new", r"C:\new\table", r"d:\data", r"C:\1\x"])
@pytest.mark.parametrize(
    "form",
    ['data-root = "{}"', '[dataset]\nname = "coco"\nroot = "{}"', 'stream = ["a", {{name = "b", weights = "{}"}}]'],
)
def test_a_path_of_windows_in_double_quotes_says_how_to_write_it(tmp_path, written, form):
    path = tmp_path / "run.toml"
    path.write_text(form.format(written))
    with pytest.raises(InvalidConfig) as error:
        read_options(path)
    assert error.value.hint == r"write a path of Windows in single quotes, which keep its backslashes: 'C:\data'"
    path.write_text(form.format(written).replace(f'"{written}"', f"'{written}'"))
    assert read_options(path)


@pytest.mark.parametrize("value", [3, True, ["a"], None])
def test_a_stream_that_is_no_text_is_refused_in_words(value):
    with pytest.raises(
        InvalidConfig, match=r"expected the text NAME or NAME\[KEY=VALUE,\.\.\.\], or a table with 'name'"
    ):
        RunConfig(stream=["minilm", value])
