"""What the commands say after Ctrl-C, SIGTERM and the end of --max-time is so."""

import os
import signal

import pytest
import typer

from sparc.cli.app import app
from sparc.cli.interruptions import KEPT, kept
from sparc.config.options import TimeOptions
from sparc.errors import TimeUp
from sparc.extraction import supervise
from sparc.session.stopping import stop_on_signal, time_limit
from sparc.system.processes import started

EXTRACTED = "the features that were extracted are kept, but for the last seconds"


def test_every_command_says_what_it_keeps():
    group = typer.main.get_command(app)
    assert {name for name in group.commands if name != "plan"} <= KEPT.keys()
    assert kept(["--debug", "extract", "--stream", "a"]).endswith(EXTRACTED)
    assert kept(["extract", "--plan"]) == "run the same command again: it had written nothing"
    assert kept(["train", "--resume=runs/a"]) == "run the same command again: it goes on from the last checkpoint"
    assert "sparc train --resume RUN" in kept(["train"], at_once=True)
    assert "store" not in kept(["evaluate", "runs/a"])
    assert kept([]) == "run the same command again"


def test_the_end_of_the_time_is_named_and_a_signal_is_not():
    with pytest.raises(TimeUp, match="the time that --max-time 1s gave is up"), time_limit(TimeOptions(max_time="1s")):
        signal.pause()
    with time_limit(TimeOptions(max_time="1s")), stop_on_signal() as stopped:
        signal.pause()
    assert (stopped(), str(stopped.error)) == (True, "the time that --max-time 1s gave is up")
    with stop_on_signal() as stopped:
        assert not stopped()
        os.kill(os.getpid(), signal.SIGINT)
    assert (stopped(), type(stopped.error), str(stopped.error)) == (True, KeyboardInterrupt, "")


def test_an_extraction_whose_time_is_up_says_so_and_keeps_its_features(sparc_here, photos, monkeypatch):
    monkeypatch.setattr(supervise, "started", started)  # which takes more than a second to import PyTorch
    streams = ("--stream", "tiny-image", "--stream", "char-ngrams")
    done = sparc_here("extract", *streams, "--dataset", "image-folder", "--data-root", photos, "--max-time", "1s")
    assert done.returncode == 130
    assert done.stderr.splitlines() == [
        "error: the time that --max-time 1s gave is up",
        f"hint:  run the same command again: {EXTRACTED}",
    ]
