"""Names of latents, from the table of a run and back."""

import re

import pytest

from sparc.errors import CorruptFile
from sparc.storage.latent_names import LatentName, name_columns, read_latent_names

CAT = LatentName("cat", depth=2, purity=0.75, lift=3.5, confirmed=True)
RARE = LatentName("a rare, 'quoted' \"thing\"", depth=0, purity=None, lift=None, confirmed=False)
HEADER = "latent,name,depth,purity,lift,confirmed\n"


def write(path, columns):
    import csv

    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


def test_names_come_back_as_they_were_and_latents_without_a_name_have_none(tmp_path):
    names = {1: CAT, 3: RARE}
    table = write(tmp_path / "latents.csv", {"latent": range(5), **name_columns(names, 5)})
    assert read_latent_names(table) == names


def test_without_labels_or_without_a_table_there_are_no_names(tmp_path):
    assert read_latent_names(tmp_path / "latents.csv") == {}
    assert read_latent_names(write(tmp_path / "latents.csv", {"latent": [0, 1], "entropy": [0.5, None]})) == {}


@pytest.mark.parametrize(
    "content",
    [
        HEADER + "0,cat,two,0.5,2.0,True\n",
        HEADER + "0,cat,2,0.5,2.0,yes\n",
        HEADER + "0,cat,2,0.5\n",
        "name,depth,purity,lift,confirmed\ncat,2,0.5,2.0,True\n",
        b"\xff\xfe\x00name",
    ],
)
def test_a_damaged_table_is_an_error_that_names_the_file(content, tmp_path):
    table = tmp_path / "latents.csv"
    table.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(CorruptFile, match=re.escape(str(table))) as raised:
        read_latent_names(table)
    assert raised.value.hint == "measure the run again: sparc evaluate"
