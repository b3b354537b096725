"""`sparc explore`: the site of a real run, and the links that it prints."""

import base64
import re
import signal
import subprocess
import sys
import urllib.request
from urllib.parse import unquote

import pytest
import timm

from sparc.models import load_models
from tests.conftest import save_weights
from tests.explorer.site_data import data


def link(done):
    """The fragment of the link that the command printed."""
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("open file://")]
    return line.partition("#")[2]


@pytest.mark.slow
def test_a_run_is_explored_served_and_opened_at_what_a_text_or_an_image_activates(sparc_here, photos, environment):
    folder = photos.parent
    weights = folder / "vit.safetensors"
    save_weights(timm.create_model("test_vit", pretrained=False), weights)
    streams = ("--stream", f"vit=timm[model=test_vit,weights={weights}]", "--stream", "char-ngrams")
    options = ("--dataset", "image-folder", "--data-root", photos, "--n-latents", 32, "--k", 4, "--epochs", 3)
    assert sparc_here("train", *streams, *options, "--batch-size", 16, "--out", "run").returncode == 0
    done = sparc_here("explore", "run")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "run/explore/index.html"
    site = folder / "run" / "explore"
    assert link(done) == ""

    run = data(site, "run")
    assert [stream["modality"] for stream in run["streams"]] == ["image", "text"]
    assert run["warnings"] == []
    assert run["measures"]
    assert all(one["read"] for one in run["measures"])
    rows, columns = run["streams"][0]["grid"]
    heat = [entry["top"]["vit"][0][2] for entry in data(site, "latent/0") if entry is not None and entry["top"]["vit"]]
    assert any(heat)
    sizes = {len(base64.b64decode(one)) for one in heat if one is not None}
    assert sizes == {rows * columns}
    assert max(max(base64.b64decode(one)) for one in heat if one is not None) == 255

    # The same run again: the same bytes. With a place to open, the page is not written again.
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in site.rglob("*") if path.is_file()}
    done = sparc_here("explore", "run", "--text", "a red bar #1")
    assert done.returncode == 0, done.stderr
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in before} == before
    place = re.fullmatch(r"/latents\?only=([\d,]+)&why=(\S+)", link(done))
    assert unquote(place[2]) == 'text "a red bar #1"'
    (codes,) = load_models(folder / "run", ["char-ngrams"]).encode_texts(["a red bar #1"]).values()
    strongest = [latent for value, latent in sorted(zip(-codes.values[0], codes.indices[0], strict=True)) if value < 0]
    assert [int(latent) for latent in place[1].split(",")] == strongest
    done = sparc_here("explore", "run", "--image", photos / "red-bar-1.png")
    assert unquote(link(done)).endswith("why=image red-bar-1.png")
    assert link(sparc_here("explore", "run", "--latent", 7)) == "/latent/7"
    done = sparc_here("explore", "run")
    assert {path: path.read_bytes() for path in before} == {path: content for path, (content, _) in before.items()}

    server = subprocess.Popen(
        [sys.executable, "-m", "sparc", "explore", "run", "--serve"],
        cwd=folder,
        env={**environment, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    line = next(line for line in server.stdout if line.startswith("serving "))
    address = re.match(r"serving (http://127\.0\.0\.1:\d+/)", line)[1]
    with urllib.request.urlopen(address + "data/run.js", timeout=10) as answer:
        assert answer.read() == (site / "data" / "run.js").read_bytes()
    server.send_signal(signal.SIGINT)
    assert server.wait(timeout=20) == 0
    server.stdout.close()

    weights.unlink()
    with (folder / "run" / "metrics.jsonl").open("a") as log:
        log.write('{"step": 10000, "loss": 0.1}\n')
    done = sparc_here("explore", "run")
    assert done.returncode == 0, done.stderr
    run = data(site, "run")
    of_log, warning = run["warnings"]
    assert "metrics.jsonl is not the log of this training" in of_log
    assert of_log.endswith("and so are the training curves")
    assert warning.startswith("the page has no heat maps: ")
    assert "vit.safetensors" in warning
    assert run["streams"][0]["grid"] is None
    assert sparc_here("explore", "run", "--image", photos / "red-bar-1.png").returncode == 1
