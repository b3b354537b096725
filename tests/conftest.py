"""Fixtures: the example packages as installed plugins, a small image folder, the command line as a user calls it."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import pytest
from hypothesis import settings
from PIL import Image

from sparc.cli import main

settings.register_profile("sparc", derandomize=True, deadline=None)  # every run tries the same examples
settings.load_profile("sparc")

# No torch here: the process that hands tests to the workers reads this file too.
os.environ["OMP_NUM_THREADS"] = "1"  # two workers share two cores
os.environ["OMP_WAIT_POLICY"] = "passive"  # threads of Numba's kernels would spin on the other worker's core
# Without bytecode, every process compiles the libraries that it imports anew: PyTorch alone takes ten seconds.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

ROOT = Path(__file__).parent.parent
EXAMPLES = [ROOT / "examples" / name for name in ("sparc-classic", "sparc-digits")]
BUILD_WHEEL = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
COLOURS = {"red": (220, 30, 30), "green": (30, 180, 60), "blue": (40, 60, 220), "yellow": (240, 220, 40)}
SHAPES = ("square", "bar", "frame")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(scope="session")
def made_once(tmp_path_factory):
    """Return the folder of a name, which `make` fills once for all workers of this test run."""
    base = tmp_path_factory.getbasetemp()
    common = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def once(name, make):
        folder, complete = common / name, common / f"{name}.complete"
        with (common / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not complete.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                make(folder)
                complete.touch()
        return folder

    return once


@pytest.fixture(scope="session")
def installed_example(made_once):
    """A folder in which the example packages are installed: their wheels, unpacked; nothing is left in the sources."""

    def install(folder):
        leftovers = shutil.ignore_patterns("build", "*.egg-info", "__pycache__")
        for package in EXAMPLES:
            source = shutil.copytree(package, folder / package.name, ignore=leftovers)
            subprocess.run([sys.executable, "-c", BUILD_WHEEL, folder], cwd=source, check=True, capture_output=True)
        for wheel in folder.glob("*.whl"):
            zipfile.ZipFile(wheel).extractall(folder / "site")

    return made_once("examples", install) / "site"


def variables_of(installed_example):
    """Variables of a user who has the example packages, and no network."""
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(installed_example), str(ROOT)]),
        "HF_HUB_OFFLINE": "1",
        "COLUMNS": "120",
    }


@pytest.fixture
def environment(installed_example, tmp_path):
    """Variables of a user who has the example packages, a store of their own, and no network."""
    places = {"SPARC_CACHE": str(tmp_path / "cache"), "HF_HOME": str(tmp_path / "hf")}
    return {**variables_of(installed_example), **places}


@pytest.fixture
def sparc_command(environment, tmp_path):
    """`sparc` in a process of its own, in a folder of its own; returns the finished process."""

    def run(*arguments, **variables):
        return subprocess.run(
            [sys.executable, "-m", "sparc", *map(str, arguments)],
            env={**environment, **variables},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


def fork_workers(patch):
    from sparc.extraction import supervise
    from tests.forked import Worker

    patch.setattr(supervise, "started", Worker)


@pytest.fixture
def quick(monkeypatch):
    """Workers of extractions that are forks of a process that has imported PyTorch, and classifiers of a few steps."""
    from sparc.evaluation import classifiers

    fork_workers(monkeypatch)
    monkeypatch.setattr(classifiers, "EPOCHS", 1)
    monkeypatch.setattr(classifiers, "STEPS", 5)


@pytest.fixture
def quick_pool(monkeypatch):
    """Workers of ablations that are such forks."""
    from sparc.ablation import pool
    from tests.forked import Pools

    monkeypatch.setattr(pool, "multiprocessing", Pools)


@pytest.fixture
def sparc_here(environment, tmp_path, use_example, quick, monkeypatch, capfd):
    """`sparc` in this process: one of its own takes two seconds to start. An extraction still has its own."""

    def run(*arguments, **variables):
        names = ("PYTHONPATH", "SPARC_CACHE", "HF_HUB_OFFLINE", "HF_HOME", "COLUMNS")
        for name, value in ({name: environment[name] for name in names} | variables).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["sparc", *map(str, arguments)])  # provenance has the command
        monkeypatch.chdir(tmp_path)
        with warnings.catch_warnings():
            warnings.filterwarnings("always", module=r"sparc")  # to be printed, not raised
            with pytest.raises(SystemExit) as ended:
                main([*map(str, arguments)])
        return subprocess.CompletedProcess(arguments, ended.value.code, *capfd.readouterr())

    return run


@pytest.fixture
def use_example(installed_example, monkeypatch):
    """The example packages in this process."""
    monkeypatch.syspath_prepend(str(installed_example))


def draw(path, colour, shape, size):
    image = Image.new("RGB", (64, 64), "white")
    far, near = 52 - size, 12 + size
    boxes = {
        "square": [(20 - size, 20 - size, 44 + size, 44 + size)],
        "bar": [(4, 28 - size, 60, 36 + size)],
        "frame": [(8, 8, 56, near), (8, 8, near, 56), (8, far, 56, 56), (far, 8, 56, 56)],
    }
    for left, top, right, bottom in boxes[shape]:
        image.paste(COLOURS[colour], (left, top, right, bottom))
    image.save(path)


@pytest.fixture(scope="session")
def drawn_photos(made_once):
    """The folder that `photos` copies."""

    def draw_all(folder):
        lines = ["image,caption,labels"]
        for colour in COLOURS:
            for shape in SHAPES:
                for size in range(5):
                    name = f"{colour}-{shape}-{size}.png"
                    draw(folder / name, colour, shape, size)
                    lines.append(f"{name},a {colour} {shape} of size {size},{colour};{shape}")
        (folder / "samples.csv").write_text("\n".join(lines) + "\n")
        parents = {"any": [], **{label: ["any"] for label in (*COLOURS, *SHAPES)}}
        (folder / "taxonomy.json").write_text(json.dumps(parents))

    return made_once("drawn", draw_all)


@pytest.fixture
def photos(drawn_photos, tmp_path):
    """An image folder of 60 coloured shapes with captions and labels: every colour and shape in five sizes."""
    return shutil.copytree(drawn_photos, tmp_path / "photos")


RANDOM_VIT = "timm[model=test_vit,weights=random]"


@pytest.fixture(scope="session")
def extracted_once(drawn_photos, installed_example, made_once):
    """A cache with the features of `photos` in three light streams and those of a small random ViT."""

    def extract(cache):
        import sparc

        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(str(installed_example))
            for name, value in {"SPARC_CACHE": cache, "HF_HOME": cache / "hf", "HF_HUB_OFFLINE": "1"}.items():
                patch.setenv(name, str(value))
            fork_workers(patch)
            streams = ("hog", "tiny-image", "char-ngrams", RANDOM_VIT)
            sparc.extract(dataset="image-folder", data_root=drawn_photos, stream=streams)

    return made_once("extracted", extract)


@pytest.fixture
def extracted(extracted_once, photos, environment):
    """`photos`, whose features in the streams of `extracted_once` are in the store already."""
    shutil.copytree(extracted_once, environment["SPARC_CACHE"])
    return photos


def save_weights(model, path):
    from safetensors.torch import save_file

    save_file(model.state_dict(), path)


@pytest.fixture(scope="session")
def dinov2_weights(made_once):
    """The real DINOv2 ViT-S/14 with registers as the hub serves it, made for 518 pixels; its weights are random."""

    def make(folder):
        import timm
        import torch

        torch.manual_seed(1)
        model = timm.create_model("vit_small_patch14_reg4_dinov2.lvd142m", pretrained=False)
        save_weights(model, folder / "model.safetensors")

    return made_once("dinov2", make) / "model.safetensors"


@pytest.fixture(scope="session")
def clip_weights(made_once):
    """The smallest of open_clip's CLIP models as the hub serves it; its weights are random."""

    def make(folder):
        import open_clip
        import torch

        torch.manual_seed(1)
        save_weights(open_clip.create_model("ViT-S-32-alt", pretrained=None), folder / "open_clip_model.safetensors")

    return made_once("clip", make) / "open_clip_model.safetensors"


@pytest.fixture(scope="session")
def trained_once(extracted_once, drawn_photos, installed_example, made_once):
    """A folder with the run `run`, trained on `photos` in three streams, and a cache with its features."""

    def train(folder):
        import sparc

        shutil.copytree(extracted_once, folder / "cache")
        shutil.copytree(drawn_photos, folder / "photos")
        data = {
            "dataset": "image-folder",
            "data_root": folder / "photos",
            "stream": ("hog", "tiny-image", "char-ngrams"),
            "out": folder / "run",
        }
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(str(installed_example))
            patch.setenv("SPARC_CACHE", str(folder / "cache"))
            sparc.train(**data, n_latents=32, k=4, batch_size=16, epochs=20, lr=0.01, normalization="standard")

    return made_once("searchable", train)
