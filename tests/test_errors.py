"""What an error says in Python, in a traceback and on the command line."""

import contextlib
import pickle  # noqa: TID251
import traceback

import pytest

import sparc
from sparc import config
from sparc.cli import main
from sparc.config.wording import OPTION, expected, spelled_as
from sparc.errors import BadSample, InvalidConfig, said


def test_an_error_as_text_is_its_message_its_details_and_its_hint():
    error = InvalidConfig("expected one, found two", hint="remove one", details=["line 3: the second"])
    assert str(error) == "expected one, found two\nline 3: the second\nhint: remove one"
    assert (error.message, error.hint, said(error)) == ("expected one, found two", "remove one", error.message)
    assert said(ValueError("no hint")) == "no hint"
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again)) == (InvalidConfig, str(error))


def test_a_traceback_shows_the_hint_once():
    try:
        raise BadSample("it is empty", hint="copy it again")
    except BadSample as error:
        shown = "".join(traceback.format_exception(error))
    assert shown.endswith("sparc.errors.BadSample: it is empty\nhint: copy it again\n")
    assert shown.count("hint: copy it again") == 1


def test_an_option_is_spelled_as_its_user_writes_it(capsys, tmp_path):
    with pytest.raises(InvalidConfig) as raised:
        sparc.RunConfig(n_latents=0)
    assert str(raised.value).startswith(
        "n_latents: expected a whole number from 1, found 0\nhint: as in n_latents=8192"
    )
    (tmp_path / "run.toml").write_text("n-latents = 0\n")
    for words, message, hint in (
        (["--n-latents", "0"], "--n-latents: expected a whole number from 1, found 0", "as in --n-latents 8192; or"),
        (
            ["--config", str(tmp_path / "run.toml")],
            "run.toml: n-latents: expected a whole",
            "as in n-latents = 8192; or",
        ),
        (["--resume", ""], "--resume: expected a path, found ''", "as in --resume RUN; or leave --resume out"),
        (["--config="], "--config: expected a path, found ''", "as in --config PATH; or leave --config out"),
        (["--normalization", "?"], "expected unit, standard or none, found '?'", "as in --normalization unit; or"),
        (["--selection", "globl"], "--selection: expected global or local", "did you mean --selection global?"),
        (
            ["--k", "9", "--n-latents", "8"],
            "--k: expected at most --n-latents, 8, found 9",
            "as in --k 2; or raise --n-l",
        ),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["train", *words])
        assert ended.value.code == 1
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 2
        assert message in lines[0]
        assert hint in lines[1]


@contextlib.contextmanager
def kept_in(refused, name):
    """Keep the errors that the block raises, by name."""
    try:
        yield
    except InvalidConfig as error:
        refused.setdefault(name, []).append(error)


COMMANDS = (
    config.RunConfig,
    config.ExtractOptions,
    config.EvaluateOptions,
    config.ExploreOptions,
    config.LocalizeOptions,
    config.EncodeOptions,
    config.SearchOptions,
    config.AttachOptions,
    config.DetachOptions,
    config.CompleteOptions,
)


@pytest.mark.parametrize("model", COMMANDS)
def test_each_option_with_a_wrong_value_says_what_was_expected_and_found_and_how_to_write_it(model):
    refused = {}
    for field in model.model_fields:
        name = config.option_name(field)
        for wrong in ("", "x", "nan", "-1", "0", "1e99", "2.5", "no/such/path"):
            with spelled_as(OPTION), kept_in(refused, f"--{name}"):
                config.validated(model, {name: wrong})
    for name, errors in refused.items():
        for error in errors:
            assert error.message.startswith(f"{name}: expected "), error.message
            assert ", found " in error.message
            assert error.hint.startswith((f"as in {name} ", f"did you mean {name} ")), error.hint
    numbers_and_choices = {
        f"--{config.option_name(field)}"
        for field, info in model.model_fields.items()
        if expected(info, "") not in (None, "true or false")
    }
    assert numbers_and_choices <= refused.keys()
