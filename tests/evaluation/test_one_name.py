"""A latent has one name, the confirmed one in the run's table of latents, in every command that shows names."""

import csv
import json
import shutil

import pytest

from sparc.models import load_models
from tests.conftest import COLOURS, SHAPES, draw


@pytest.fixture
def many_photos(tmp_path):
    """360 photos, 30 of every colour and shape, enough for names to be confirmed."""
    folder = tmp_path / "photos"
    folder.mkdir()
    lines = ["image,caption,labels"]
    for colour in COLOURS:
        for shape in SHAPES:
            for size in range(5):
                draw(folder / "one.png", colour, shape, size)
                for copy in range(6):
                    name = f"{colour}-{shape}-{size}-{copy}.png"
                    shutil.copy(folder / "one.png", folder / name)
                    lines.append(f"{name},a {colour} {shape} of size {size},{colour};{shape}")
    (folder / "samples.csv").write_text("\n".join(lines) + "\n")
    return folder


def rows_of(table):
    with table.open(newline="") as file:
        return list(csv.DictReader(file))


def rename(table, latent, label):
    """Change the name of one latent in the table, and nothing else."""
    rows = rows_of(table)
    rows[latent]["name"] = label
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


@pytest.mark.slow
def test_a_latent_has_the_same_name_in_the_table_in_explore_and_in_localisation(sparc_here, many_photos, tmp_path):
    data = ("--dataset", "image-folder[holdout=0.6]", "--data-root", many_photos)
    shape = ("--n-latents", 32, "--k", 4, "--batch-size", 16, "--lr", 0.01, "--epochs", 10)
    trained = sparc_here("train", "--stream", "hog", "--stream", "char-ngrams", *data, *shape, "--out", "run")
    assert trained.returncode == 0, trained.stderr
    table = tmp_path / "run" / "evaluation" / "latents.csv"
    written = table.read_bytes()
    confirmed = {int(row["latent"]): row["name"] for row in rows_of(table) if row["confirmed"] == "True"}
    assert confirmed
    assert set(confirmed.values()) <= {*COLOURS, *SHAPES}
    assert load_models(tmp_path / "run").names == confirmed

    latent = next(iter(confirmed))
    picture = tmp_path / "run" / f"latent-{latent}.png"
    assert sparc_here("explore", "run", "--sheet", "--latent", latent).returncode == 0
    shown = picture.read_bytes()
    rename(table, latent, "zebra")
    with pytest.warns(UserWarning, match="is not the table that was written with"):
        assert load_models(tmp_path / "run").names == {**confirmed, latent: "zebra"}
    assert sparc_here("explore", "run", "--sheet", "--latent", latent).returncode == 0
    assert picture.read_bytes() != shown
    rename(table, latent, confirmed[latent])

    # The paper's rule changes the report's section of concepts, never the stored names.
    measured = sparc_here("evaluate", "run", "--concepts", "purity")
    assert measured.returncode == 0, measured.stderr
    report = json.loads((tmp_path / "run" / "evaluation.json").read_text())["report"]
    assert report["concepts"]["rule"] == "purity"
    assert "Concepts by purity, joint" in measured.stdout
    assert report["concepts"]["streams"].keys() == {"hog", "char-ngrams"}
    assert table.read_bytes() == written
