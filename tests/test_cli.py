"""The command line as a user calls it, on real files and with the example package installed."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from PIL import Image

import sparc
from sparc.storage.card import model_card
from tests.conftest import RANDOM_VIT

STREAMS = ("--stream", "hog", "--stream", "char-ngrams")
SHAPE = ("--n-latents", "64", "--k", "4", "--batch-size", "16", "--lr", "0.01")


def assert_fails(done, message, hint, code=1):
    """Assert that standard error is two lines: no traceback, no usage panel."""
    lines = done.stderr.strip().splitlines()
    assert done.returncode == code, done.stdout + done.stderr
    assert len(lines) == 2, done.stderr
    assert lines[0].startswith("error: ")
    assert message in lines[0]
    assert lines[1].startswith("hint: ")
    assert hint in lines[1]


def folder(photos):
    return ("--dataset", "image-folder", "--data-root", photos)


@pytest.mark.slow
def test_train_extracts_trains_evaluates_and_prints_the_next_commands(sparc_command, sparc_here, photos, tmp_path):
    first = sparc_command("train", *STREAMS, *folder(photos), *SHAPE, "--epochs", 20)
    assert first.returncode == 0, first.stderr
    assert first.stderr == ""
    for word in (
        "extract hog (train split)",
        "train  ",
        "Reconstruction",
        "Jaccard",
        "Retrieval",
        "chance",
        "sparc explore",
    ):
        assert word in first.stdout
    run = tmp_path / "runs" / "image-folder"
    space = sparc.load(run)
    assert list(space.streams) == ["hog", "char-ngrams"]
    report = json.loads((run / "evaluation.json").read_text())["report"]
    by_name = {(pair["query"], pair["target"]): pair for pair in report["retrieval"]}
    found = by_name["hog", "char-ngrams"]
    assert found["latents"]["mrr"] > 2 * found["chance"]["mrr"]
    provenance = json.loads((run / "provenance.json").read_text())
    assert provenance["seed"] == 0
    assert provenance["versions"]["torch"]
    assert provenance["samples"] + report["samples"] == 60
    assert len(provenance["features"]["hog"]) == 2  # digests of the list of samples and of one shard
    assert provenance["streams"]["hog"]["plugin"] == "sparc-classic 0.1.0"
    assert "Jaccard of labels" in str(model_card(run, "lab/space"))

    config = tmp_path / "run.toml"
    config.write_text(
        f'stream = ["hog", "char-ngrams"]\ndataset = "image-folder"\ndata-root = "{photos}"\n'
        "n-latents = 64\nk = 4\nbatch-size = 16\nlr = 0.01\nepochs = 3\n"
    )
    again = sparc_here("train", "--config", config, "--epochs", 20, "--out", "mine")
    assert again.returncode == 0, again.stderr
    assert "features: 4 of 4 are in the store" in again.stdout
    assert (tmp_path / "mine" / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()

    shown = " ".join(sparc_here("info", "mine").stdout.split())
    assert "Retrieval" in shown
    assert "space: 64 latents, 4 kept, global selection, unit normalization" in shown
    assert "training: lambda 1.0, aux-weight 0.03125, k-aux 64, dead-after 106, epochs 20, batch-size 16" in shown
    mine = tmp_path / "mine"
    before = {path: path.read_bytes() for path in mine.iterdir() if path.is_file()}
    measured = sparc_here("evaluate", "mine")
    assert measured.returncode == 0, measured.stderr
    for word in ("Sharing, solo", "Concepts by enrichment", "by reconstruction"):
        assert word in measured.stdout
    assert {path: path.read_bytes() for path in mine.iterdir() if path.is_file()} == before
    assert {"alignment.png", "alignment.svg", "latents.csv"} <= {path.name for path in (mine / "evaluation").iterdir()}
    assert len((mine / "evaluation" / "latents.csv").read_text().splitlines()) == 1 + 64
    refused = sparc_here("evaluate", "mine", "--concepts", "taste")
    assert_fails(refused, "--concepts: expected enrichment or purity, found 'taste'", "as in --concepts enrichment")
    drawn = sparc_here("explore", "mine", "--sheet")
    assert drawn.stdout.splitlines()[-1] == "mine/latents.png", drawn.stderr
    with Image.open(tmp_path / "mine" / "latents.png") as picture:
        assert picture.width > 800
    assert_fails(sparc_here("explore", "mine", "--latent", 64), "expected 0 to 63, found 64", "--latent")
    assert_fails(sparc_here("explore", "mine", "--sheet", "--out", "sheet.svg"), "ends in .png, found sheet.svg", "PNG")
    before = {path: path.read_bytes() for path in mine.iterdir() if path.is_file()}
    done = sparc_here("train", "--resume", "mine")
    assert "mine is already trained and evaluated" in done.stdout, done.stderr
    assert {path: path.read_bytes() for path in mine.iterdir() if path.is_file()} == before
    assert_fails(sparc_here("train", "--resume", "mine", "--k", 3), "found --k too", "remove that option")
    assert_fails(sparc_here("train", *STREAMS, "--out", "mine"), "never overwritten", "--resume mine")
    (tmp_path / "mine" / "config.json").write_text('{"format_version": 7}')
    assert_fails(sparc_here("evaluate", "mine"), "format version 7", "pip install -U sparc-sae")


def start(environment, cwd, *arguments):
    """Start `sparc`, for which Ctrl-C counts even if this process runs in the background of a shell."""
    command = [sys.executable, "-m", "sparc", *map(str, arguments)]
    pipe = subprocess.PIPE
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a child inherits that a signal is ignored
    try:
        return subprocess.Popen(command, env=environment, cwd=cwd, stdout=pipe, stderr=pipe, text=True)
    finally:
        signal.signal(signal.SIGINT, before)


def wait_for(path, process):
    deadline = time.monotonic() + 60
    while not path.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert path.exists(), process.communicate()


def test_an_interrupted_training_resumes_to_the_same_bits(sparc_here, environment, extracted, tmp_path):
    options = ("train", *STREAMS, *folder(extracted), *SHAPE, "--epochs", 100)
    process = start(environment, tmp_path, *options, "--out", "stopped")
    wait_for(tmp_path / "stopped" / "metrics.jsonl", process)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, output + errors
    assert "stopped. Resume it with: sparc train --resume stopped" in output
    assert_fails(sparc_here("evaluate", "stopped"), "the run stopped is not finished", "sparc train --resume stopped")
    resumed = sparc_here("train", "--resume", "stopped")
    assert resumed.returncode == 0, resumed.stderr
    whole = sparc_here(*options, "--out", "whole")
    assert whole.returncode == 0, whole.stderr
    models = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("stopped", "whole")]
    assert models[0] == models[1]
    metrics = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("stopped", "whole")]
    assert metrics[0] == metrics[1]


def test_an_interrupted_extraction_ends_its_worker_and_prints_a_hint(environment, photos, tmp_path):
    process = start(environment, tmp_path, "extract", *STREAMS, *folder(photos))
    deadline = time.monotonic() + 60
    workers = []
    while not workers and time.monotonic() < deadline:
        children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True)
        workers = children.stdout.split()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.startswith(
        "error: interrupted\nhint:  run the same command again: the features that were extracted are kept"
    )
    assert not any(os.path.exists(f"/proc/{worker}") for worker in workers)


@pytest.mark.slow
def test_the_papers_streams_train_from_local_weights(sparc_here, dinov2_weights, clip_weights, photos, tmp_path):
    few = (photos / "samples.csv").read_text().splitlines()[:13]
    (photos / "samples.csv").write_text("\n".join(few))
    vision = f"dinov2[weights={dinov2_weights}]"
    towers = [f"{name}[model=ViT-S-32-alt,weights={clip_weights}]" for name in ("clip-img", "clip-txt")]
    streams = [word for stream in (vision, *towers) for word in ("--stream", stream)]
    done = sparc_here("train", *streams, *folder(photos), *SHAPE, "--epochs", 5, "--out", "run")
    assert done.returncode == 0, done.stderr
    assert sparc.load(tmp_path / "run").streams == {"dinov2": 384, "clip-img": 256, "clip-txt": 256}
    assert "random weights" not in done.stdout
    pairs = json.loads((tmp_path / "run" / "evaluation.json").read_text())["report"]["retrieval"]
    compared = {(pair["query"], pair["target"]) for pair in pairs if pair["raw"] is not None}
    assert compared == {("clip-img", "clip-txt"), ("clip-txt", "clip-img")}  # the towers of one model


def test_missing_weights_of_the_papers_streams_are_an_error_with_a_hint(sparc_here, photos, tmp_path):
    streams = ("--stream", "dinov2", "--stream", "clip-img", "--stream", "clip-txt")
    done = sparc_here("train", *streams, *folder(photos))
    assert_fails(done, "timm/vit_small_patch14_reg4_dinov2.lvd142m/model.safetensors", "weights=random")
    assert "extract dinov2" not in done.stdout
    assert not (tmp_path / "runs").exists()


def test_random_weights_are_noted_beside_all_numbers_of_a_dry_run(sparc_here, extracted, tmp_path):
    streams = ("--stream", RANDOM_VIT, "--stream", "char-ngrams")
    done = sparc_here("train", *streams, *folder(extracted), *SHAPE, "--epochs", 2, "--out", "dry")
    assert done.returncode == 0, done.stderr
    assert "timm: random weights (dry run)" in done.stdout
    assert "timm: random weights (dry run)" in sparc_here("info", "dry").stdout
    assert json.loads((tmp_path / "dry" / "provenance.json").read_text())["random_weights"] == ["timm"]


def test_one_stream_is_a_plain_sparse_autoencoder(sparc_here, extracted, tmp_path):
    relative = ("--dataset", f"image-folder[root={extracted.name}]")
    done = sparc_here("train", "--stream", "hog", *relative, *SHAPE, "--epochs", 2, "--out", "one")
    assert done.returncode == 0, done.stderr
    options = json.loads((tmp_path / "one" / "provenance.json").read_text())["options"]
    assert options["dataset"]["params"]["root"] == str(extracted)
    assert "Retrieval" not in done.stdout
    assert sparc.load(tmp_path / "one").streams == {"hog": 449}


@pytest.mark.parametrize(
    ("arguments", "message", "hint", "code"),
    [
        (["train", "--stream", "hogg"], "no plugin offers a stream named 'hogg'", "did you mean 'hog'?", 1),
        (["train", "--dataset", "openmojis"], "dataset named 'openmojis'", "did you mean 'openmoji'?", 1),
        (["train", "--streams", "hog"], "no such option: --streams", "--stream", 2),
        (["train", "--k", "many"], "--k: expected a whole number from 1, found 'many'", "as in --k 64; or leave", 1),
        (["ablate", "--seeds", "0"], "--seeds: expected a whole number from 1, found 0", "see: sparc ablate --help", 2),
        (["trian"], "no such command 'trian'", "did you mean 'train'?", 2),
        (["train", "--config", "none.toml"], "config file not found: none.toml", "--config", 1),
        (
            ["train", "--k", "513"],
            "--k: expected at most --n-latents, 512, found 513",
            "lower k to 512 or less, as in --k 128",
            1,
        ),
        (["train", "--dataset", "image-folder", "--data-root", "."], "has no samples.csv", "image, caption", 1),
        (
            ["train", "--dataset", "image-folder"],
            "'image-folder': expected 'root', found nothing",
            "--data-root FOLDER",
            1,
        ),
        (["train", "--stream", "hog[size=big]"], "'hog': size", "as in [size=", 1),
        (["train", "--stream", "hog", "--device", "gpu"], "--device: 'gpu' is not available", "cuda", 1),
        (["train", "--resume", "nowhere"], "no run at nowhere", "directory of a run", 1),
        (["evaluate", "nowhere"], "no run at nowhere", "directory of a run", 1),
    ],
)
def test_mistakes_are_errors_of_two_lines(sparc_here, tmp_path, arguments, message, hint, code):
    assert_fails(sparc_here(*arguments), message, hint, code)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("group", [(), ("plugins",), ("bench",)])
def test_a_command_without_arguments_shows_its_help_and_no_error(sparc_here, group):
    done = sparc_here(*group)
    assert "Usage" in done.stdout
    assert done.stderr == ""


def test_no_streams_is_an_error_of_two_lines(sparc_here, photos):
    assert_fails(sparc_here("train", *folder(photos)), "at least one stream, found none", "--stream NAME")


def test_an_unknown_config_key_is_an_error_of_two_lines(sparc_here, tmp_path):
    (tmp_path / "run.toml").write_text("epoch = 3\n")
    assert_fails(sparc_here("train", "--config", "run.toml"), "unknown key 'epoch'", "did you mean 'epochs'?")


@pytest.mark.slow
def test_a_bad_image_is_named_and_skipped_only_on_request(sparc_here, photos, tmp_path):
    (photos / "red-bar-1.png").write_bytes(b"no image")
    (photos / "blue-bar-1.png").unlink()
    streams = ("--stream", "tiny-image", "--stream", "char-ngrams")
    done = sparc_here("extract", *streams[:2], *folder(photos))
    assert done.returncode == 1
    assert "error: " in done.stderr
    assert "-bar-1.png" in done.stderr
    assert "--skip-bad" in done.stderr
    done = sparc_here("train", *streams, *folder(photos), "--skip-bad", *SHAPE, "--epochs", 2)
    assert done.returncode == 0, done.stderr
    assert "skipped 1 sample that could not be read in tiny-image" in done.stdout or "skipped 2 samples" in done.stdout


@pytest.mark.slow
def test_the_limits_on_images_are_options(sparc_here, photos):
    Image.new("RGB", (900, 3)).save(photos / "red-bar-1.png")
    extract = ("extract", "--stream", "tiny-image", *folder(photos))
    done = sparc_here(*extract)
    assert_fails(done, "'red-bar-1.png' has 900 x 3 pixels: its longer side is 300 times", "--max-side-ratio 300")
    assert sparc_here(*extract, "--max-side-ratio", 300).returncode == 0
    assert_fails(
        sparc_here(*extract, "--max-pixels", 0), "--max-pixels: expected a whole number from 1", "as in --max-p"
    )


@pytest.mark.slow
def test_a_full_disk_is_an_error_of_two_lines_and_extraction_resumes_later(environment, sparc_here, photos, tmp_path):
    """A limit on file sizes stands in for a full disk: both make writes fail.

    Only captions are extracted, because the limit also applies to the shared memory through which images are loaded.
    """
    words = ("extract", "--stream", "char-ngrams", *map(str, folder(photos)))
    command = [sys.executable, "-m", "sparc", *words]
    limited = ["bash", "-c", 'ulimit -f 8 && exec "$@"', "bash", *command]
    # Python would cut its own caches of modules at the limit.
    variables = {**environment, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(limited, env=variables, cwd=tmp_path, capture_output=True, text=True)
    assert_fails(done, "no space left to write", "free some space")
    assert not list((tmp_path / "cache").rglob("*.tmp"))
    done = sparc_here(*words)
    assert done.returncode == 0, done.stderr


def test_a_plugin_that_does_not_import_is_listed_with_its_error(sparc_command, environment, tmp_path):
    info = tmp_path / "site" / "sparc_broken-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: sparc-broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[sparc.plugins]\nbroken = sparc_broken\n")
    (tmp_path / "site" / "sparc_broken.py").write_text("import a_library_that_is_not_there\n")
    path = os.pathsep.join([str(tmp_path / "site"), environment["PYTHONPATH"]])
    listed = sparc_command("plugins", "list", PYTHONPATH=path)
    assert listed.returncode == 0
    assert "did not load" in listed.stdout
    assert "a_library_that_is_not_there" in listed.stdout
    assert "hog" in listed.stdout
    done = sparc_command("train", "--stream", "broken", PYTHONPATH=path)
    assert_fails(done, "no plugin offers a stream named 'broken'", "plugin 'broken' did not load")


def test_debug_shows_the_traceback_before_the_two_lines(sparc_here):
    done = sparc_here("train", "--stream", "nothing", "--debug")
    assert "Traceback" in done.stderr
    assert done.stderr.strip().splitlines()[-2].startswith("error: ")


def test_a_warning_is_one_line():
    code = "import warnings; from sparc.errors import say_warnings; say_warnings(); warnings.warn('3 of 9 are gone')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "warning: 3 of 9 are gone\n"


def test_a_plan_estimates_an_extraction_and_writes_nothing(sparc_here, photos, tmp_path):
    done = sparc_here("extract", "--stream", "tiny-image", *folder(photos), "--plan")
    assert done.returncode == 0, done.stderr
    assert "tiny-image" in done.stdout
    assert "total: " in done.stdout
    assert not (tmp_path / "cache" / "store").exists()


def test_an_error_in_the_last_split_is_found_before_anything_is_computed(sparc_here, photos, tmp_path):
    index = photos / "samples.csv"
    header, *lines = index.read_text().splitlines()
    index.write_text("\n".join([f"{header},split", *(f"{line},train" for line in lines)]) + "\n")
    done = sparc_here("extract", "--stream", "char-ngrams", *folder(photos))
    assert done.returncode == 1
    assert "is in the split 'test'" in done.stderr
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


def test_patches_of_captions_are_refused(sparc_here, photos):
    done = sparc_here("extract", "--stream", "minilm", *folder(photos), "--tokens", "patch")
    assert done.returncode == 1
    assert "none of the streams sees images" in done.stderr


def test_a_share_is_what_its_process_computes_and_one_of_torchrun_computes_what_the_others_do_not(
    sparc_here, photos, tmp_path, monkeypatch
):
    """Set the variables that torchrun sets for each process."""
    arguments = ("extract", "--stream", "tiny-image", *folder(photos))
    share = sparc_here(*arguments, "--shard", "1/2")
    assert share.returncode == 0, share.stderr
    assert "other processes are still at work" in share.stdout  # it has no shard to make
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    second = sparc_here(*arguments)
    assert second.returncode == 0, second.stderr
    assert "still at work" not in second.stdout
    assert len(list((tmp_path / "cache").rglob("manifest.json"))) == 2


@pytest.mark.parametrize("shard", ["2/2", "1", "a/b", "0/0"])
def test_an_invalid_shard_is_refused(sparc_here, photos, shard):
    done = sparc_here("extract", *STREAMS, *folder(photos), "--shard", shard)
    assert done.returncode == 1
    assert f"--shard: expected I/N with I below N, found '{shard}'" in done.stderr
