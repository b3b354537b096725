"""The site's data against what a naive computation gives, and the folder as a whole."""

import base64
import json
import shutil
from itertools import combinations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.stats import binom

from sparc.errors import OutOfMemory, StorageError
from sparc.evaluation import HeldOut, evaluate
from sparc.evaluation.alignment import hierarchical_jaccard
from sparc.explorer import site
from sparc.explorer.heat import no_maps
from sparc.explorer.shown import MOST_SHOWN, TOP, evenly
from sparc.explorer.site import is_made_of, write_site
from sparc.explorer.thumbnails import SIZE
from sparc.storage.latent_names import LatentName
from tests.explorer.site_data import ANIMALS, COLOURS, Pictures, about, data, dense, kinds, made


@pytest.fixture(scope="module")
def shown():
    stored = {0: LatentName("cat", 2, 0.9, 3.0, confirmed=True), 1: LatentName("plant", 1, 0.4, 1.5, confirmed=False)}
    return made(stored=stored)


@pytest.fixture(scope="module")
def written(shown, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "explore"
    (folder.parent / "metrics.jsonl").write_text(
        '{"step": 1, "epoch": 0.5, "loss": 2.0, "self/eye": 0.5}\n{"step": 2, "loss": NaN, "self/eye": 0.25}\n{"st\n'
    )
    warnings = write_site(folder, shown, about(folder.parent), no_maps())
    assert warnings == ["1 lines of metrics.jsonl are damaged and left out of the training curves"]
    return folder


def details(folder):
    return data(folder, "latent/0")


def close(found, wanted):
    assert found == pytest.approx(wanted, rel=1e-3, abs=1e-3)


def test_the_run_is_described(written, shown):
    run = data(written, "run")
    assert (run["name"], run["dataset"], run["held_out"], run["shown"]) == (
        "run",
        {"name": "photos", "split": "test"},
        60,
        60,
    )
    assert [stream["name"] for stream in run["streams"]] == ["eye", "lens", "word"]
    assert run["has"] == {"labels": True, "taxonomy": True, "images": True, "captions": True}
    assert run["depths"] == [0, 1, 2]
    assert run["branches"] == ["animal", "plant"]  # `thing` is above all
    loss, own = run["curves"]
    assert loss["x"] == [1, 2]
    assert loss["series"] == [{"name": "loss", "values": [2.0, None]}]
    assert own["series"] == [{"name": "eye", "values": [0.5, 0.25]}]
    assert all(one["read"] for one in run["curves"])


def test_states_rates_and_pairs_are_those_of_the_codes(written, shown):
    columns, codes = data(written, "latents"), dense(shown)
    there = {name: shown.encodings.present[name].numpy() for name in shown.streams}
    for name in shown.streams:
        close(columns["rate"][name], ((codes[name] > 0).sum(axis=0) / there[name].sum()).tolist())
    fires = np.stack([(codes[name] > 0).any(axis=0) for name in shown.streams])
    for latent, state in enumerate(columns["state"]):
        wanted = 2 if not fires[:, latent].any() else 0 if fires[:, latent].all() else 1
        assert state == (3 if latent == 10 else wanted)
    assert columns["state"][11] == 2
    assert [columns["duplicate_of"][latent] for latent in (0, 10, 11)] == [-1, 0, -1]
    for a, b in combinations(range(3), 2):
        first, second = shown.streams[a], shown.streams[b]
        both = there[first] & there[second]
        one, other = codes[first][both] > 0, codes[second][both] > 0
        pair = columns["pairs"][f"{first}>{second}"]
        assert (pair["a"], pair["b"], pair["both"]) == tuple(
            counts.sum(axis=0).tolist() for counts in (one, other, one & other)
        )
        for latent, entry in enumerate(details(written)):
            if entry is not None:
                assert [a, b, pair["a"][latent], pair["b"][latent], pair["both"][latent]] in entry["pairs"]


def test_agreement_is_the_correlation_of_activations(written, shown):
    columns, codes = data(written, "latents"), dense(shown)
    there = {name: shown.encodings.present[name].numpy() for name in shown.streams}
    found = []
    for a, b in combinations(shown.streams, 2):
        both = there[a] & there[b]
        found.append(np.corrcoef(codes[a][both, 0], codes[b][both, 0])[0, 1])
    close(columns["agreement"][0], np.mean(found))
    assert columns["agreement"][11] is None


def test_the_jaccard_of_latents_has_the_mean_that_the_evaluation_reports(written, shown):
    columns = data(written, "latents")
    report = hierarchical_jaccard(shown.encodings, *shown.labels, shown.groups, shown.seed)
    for depth, overlap in enumerate(report):
        for field, wanted in (("jaccard", overlap.solo), ("null", overlap.solo_null)):
            known = [value for value in columns[field][depth] if value is not None]
            close(np.mean(known), wanted.alive)
    assert columns["jaccard"][0][11] is None


def test_top_samples_are_the_strongest_and_no_picture_is_shown_twice(written, shown):
    codes = dense(shown)
    for latent, entry in enumerate(details(written)):
        if entry is None:
            assert latent == 11
            continue
        for name in shown.streams:
            seen, wanted = set(), []
            for sample in np.argsort(-codes[name][:, latent], kind="stable").tolist():
                row = shown.rows[name][sample]
                if codes[name][sample, latent] > 0 and row not in seen and len(wanted) < TOP:
                    seen.add(row)
                    wanted.append(sample)
            assert [sample for sample, _, _ in entry["top"][name]] == wanted
            close([value for _, value, _ in entry["top"][name]], codes[name][wanted, latent].tolist())


def test_histograms_count_every_activation_in_bins_that_the_streams_share(written, shown):
    codes = dense(shown)
    entry = details(written)[0]
    edges = {tuple(one["edges"]) for one in entry["histogram"].values()}
    assert len(edges) == 1
    for name, one in entry["histogram"].items():
        values = codes[name][:, 0][codes[name][:, 0] > 0]
        assert sum(one["counts"]) == len(values)
        assert one["counts"][-1] == (values > edges.copy().pop()[-2]).sum()


def test_neighbours_have_the_nearest_decoders_and_those_together_fire_in_the_same_samples(written, shown):
    codes, space = dense(shown), shown.space
    cosine = torch.stack(
        [(unit := F.normalize(space.decoder[:, own].detach(), dim=1)) @ unit.T for own in space.segments.values()]
    )
    entry = details(written)[3]
    mean = cosine.mean(dim=0)[3].numpy().copy()
    mean[[3, 11]] = -2  # itself, and the dead one
    order = np.argsort(-mean)[:10]
    close([value for _, value, _ in entry["nearest"]], mean[order].tolist())
    assert {other for other, _, _ in entry["nearest"]} == set(order.tolist())
    assert entry["nearest"][0][0] == order[0]
    close(entry["nearest"][0][1], float(mean[order[0]]))
    close(entry["nearest"][0][2], cosine[:, 3, order[0]].tolist())
    there = {name: shown.encodings.present[name].numpy().sum() for name in shown.streams}
    for other, count, lift in entry["together"]:
        each = [((codes[name][:, 3] > 0) & (codes[name][:, other] > 0)).sum() for name in shown.streams]
        expected = [
            (codes[name][:, 3] > 0).sum() * (codes[name][:, other] > 0).sum() / there[name] for name in shown.streams
        ]
        close(count, np.mean(each))
        close(lift, sum(each) / sum(expected))
        assert other != 3


def test_labels_and_words_of_a_latent_are_counted_on_images_and_significant(written, shown):
    codes = dense(shown)
    fires = np.any([codes[name][:, 0] > 0 for name in shown.streams], axis=0)
    images = np.array([fires[number] | fires[number + 1] for number in range(0, 60, 2)])
    cats = np.array([kind == "cat" for kind in kinds(60)[::2]])
    entry = details(written)[0]
    label, both, labelled, active, purity, confirmed = entry["labels"][0]
    assert (label, both, labelled, active) == ("cat", (images & cats).sum(), cats.sum(), images.sum())
    assert binom.sf(both - 1, active, labelled / 30) < 0.05
    assert confirmed is True
    assert 0 < purity <= 1
    assert entry["words"][0][:1] == ["cat"]
    assert data(written, "latents")["words"][0].split()[0] == "cat"


def test_the_purity_of_a_latent_is_the_share_of_its_images_with_its_name_or_its_first_label(tmp_path):
    # A quarter of the cats is called a dog.
    labels = ["dog" if number // 2 % 12 == 0 else kind for number, kind in enumerate(kinds(240))]
    unnamed, named = (LatentName(name, 1, 0.4, 1.5, confirmed=name == "animal") for name in ("plant", "animal"))
    shown = made(240, dataset=Pictures(240, None, ANIMALS, labels), stored={0: unnamed, 1: named})
    write_site(tmp_path / "explore", shown, about(tmp_path), no_maps())
    columns, entries = data(tmp_path / "explore", "latents"), details(tmp_path / "explore")
    fires = np.any([codes > 0 for codes in dense(shown).values()], axis=0).reshape(120, 2, 12).any(axis=1)
    cats, animals = (np.isin(labels[::2], own) for own in (["cat"], ["cat", "dog"]))
    assert [entries[latent]["labels"][0][0] for latent in (0, 1)] == ["cat", "dog"]
    close(columns["purity"][0], fires[cats, 0].sum() / fires[:, 0].sum())
    close(columns["purity"][1], fires[animals, 1].sum() / fires[:, 1].sum())
    assert 0 < columns["purity"][0] < 1
    assert columns["purity"][11] is None


def test_the_nearest_pair_has_the_largest_of_the_least_cosines(written, shown):
    parts = [F.normalize(shown.space.decoder[:11, own], dim=1) for own in shown.space.segments.values()]
    least = torch.stack([part @ part.T for part in parts]).amin(dim=0).triu(1).detach()
    run = data(written, "run")
    assert run["duplicate"] == 0.9
    assert run["nearest_pair"][:2] == [0, 10]  # the planted duplicate
    close(run["nearest_pair"][2], float(least.max()))


def test_a_name_is_the_stored_one_if_it_is_confirmed(written):
    columns = data(written, "latents")
    assert columns["name"][:2] == ["cat", None]
    assert columns["named_by"][:2] == [1, 0]
    assert columns["sure"][:2] == [0.9, None]
    assert columns["also"][:2] == [None, None]


def test_the_branch_of_a_latent_is_that_of_most_of_its_samples(written, shown):
    codes = dense(shown)
    plants = np.array([kind == "fern" for kind in kinds(60)])  # the branches are animal and plant
    for latent, branch in enumerate(data(written, "latents")["branch"]):
        fires = sum((codes[name][:, latent] > 0).astype(int) for name in shown.streams)
        of_branch = [int(fires[~plants].sum()), int(fires[plants].sum())]
        clear = max(of_branch) > sum(of_branch) / 2 and max(of_branch) >= 3
        assert branch == (int(np.argmax(of_branch)) if clear else -1), latent


def test_a_further_word_of_a_named_latent_is_neither_its_name_nor_a_label_above_it(tmp_path):
    captions = [f"a {'striped cat' if kind == 'cat' else kind} of number {n}" for n, kind in enumerate(kinds(240))]
    stored = {0: LatentName(label="cat", depth=2, purity=0.9, lift=3.0, confirmed=True)}
    shown = made(240, dataset=Pictures(240, captions, ANIMALS, kinds(240)), stored=stored)
    write_site(tmp_path / "explore", shown, about(tmp_path), no_maps())
    columns = data(tmp_path / "explore", "latents")
    assert columns["name"][0] == "cat"
    assert "animal" in columns["words"][0].split()
    assert columns["also"][0] == "striped"


def test_without_labels_words_of_captions_name_latents_by_the_same_rule(tmp_path):
    shown = made(240, labels=False)
    assert {latent: shown.names[latent].label for latent in (0, 1, 2)} == {0: "cat", 1: "dog", 2: "fern"}
    write_site(tmp_path / "explore", shown, about(tmp_path), no_maps())
    columns = data(tmp_path / "explore", "latents")
    assert columns["name"][:3] == ["cat", "dog", "fern"]
    assert columns["named_by"][:3] == [2, 2, 2]
    assert columns["jaccard"] == []
    held_out = HeldOut(shown.encodings.features, shown.groups, captions=shown.captions)
    evaluated = evaluate(shown.space, held_out).latents.columns  # the table that a run stores
    assert evaluated["name"][:3] == ["cat", "dog", "fern"]
    assert evaluated["confirmed"] == [name is not None for name in columns["name"]]
    with_labels = made(240)
    assert with_labels.names == {}  # none are stored, and the evaluation names by labels


def test_contributions_sum_to_the_projection_of_the_reconstruction(written, shown):
    space, features = shown.space, shown.encodings.features
    block = data(written, "sample/0")
    codes = shown.encodings.solo["eye"]
    target, bias = features["word"], space.pre_bias[space.segments["word"]].detach()
    with torch.inference_mode():
        rebuilt = space.decode(codes, "word")
    for sample in (1, 2, 31):
        x, y = (target[sample] - bias).double(), (rebuilt[sample] - bias).double()
        entry = block[sample]
        close(sum(share for _, share in entry["parts"]["eye>word"]), float(y @ x / (x @ x)))
        close(entry["explained"]["eye>word"], float(1 - (x - y) @ (x - y) / (x @ x)))
        latent, share = entry["parts"]["eye>word"][0]
        value = codes.to_dense()[sample, latent]
        close(share, float(value * (space.decoder[latent, space.segments["word"]].detach() @ x.float()) / (x @ x)))
    assert block[0]["there"] == [True, True, False]
    assert "eye>word" not in block[0]["parts"]
    assert "eye>word" not in block[0]["explained"]


def test_samples_have_their_codes_strongest_first_their_captions_and_their_labels(written, shown):
    codes = dense(shown)
    entry = data(written, "sample/0")[5]
    order = [latent for latent in np.argsort(-codes["lens"][5], kind="stable") if codes["lens"][5, latent] > 0]
    assert [latent for latent, _ in entry["codes"]["lens"]] == order
    assert entry["caption"] == "a fern of number 5"
    assert entry["labels"] == ["fern"]
    assert data(written, "samples")["id"][5] == "s5"
    assert [len(data(written, f"sample/{chunk}")) for chunk in (0, 1)] == [32, 28]


def test_the_bias_data_say_which_samples_carry_a_term_and_fire(written, shown):
    bias, codes = data(written, "bias"), dense(shown)
    cat = next(term for term in bias["terms"] if term["term"] == "cat" and term["kind"] == "label")
    assert cat["samples"] == [number for number, kind in enumerate(kinds(60)) if kind == "cat"]
    assert next(term for term in bias["terms"] if term["term"] == "animal")["samples"] == [
        number for number, kind in enumerate(kinds(60)) if kind != "fern"
    ]
    assert "of" not in {term["term"] for term in bias["terms"]}  # all captions have it
    for name in shown.streams:
        counts, positions = (
            np.frombuffer(base64.b64decode(bias["fires"][name][column]), "<u2") for column in ("counts", "positions")
        )
        assert counts.tolist() == (codes[name] > 0).sum(axis=0).tolist()
        assert positions.tolist() == [
            sample for latent in range(len(counts)) for sample in np.flatnonzero(codes[name][:, latent] > 0)
        ]
    assert bias["absent"] == {"eye": [], "lens": [], "word": list(range(0, 60, 7))}


def test_thumbnails_show_each_picture_once_and_as_a_whole(written):
    columns = data(written, "samples")
    assert columns["thumb"] == [number // 2 for number in range(60)]
    with Image.open(written / "sprites" / "0.webp") as sprite:
        assert sprite.size == (8 * SIZE, 8 * SIZE)
        tile = sprite.convert("RGBA").crop((3 * SIZE, 0, 4 * SIZE, SIZE))
    red, green, blue, alpha = tile.getpixel((SIZE // 2, SIZE // 2))
    assert max(abs(one - other) for one, other in zip((red, green, blue), COLOURS[0], strict=True)) < 12
    assert alpha == 255
    assert tile.getpixel((SIZE // 2, 5))[3] == 0  # the picture is twice as wide as it is high
    assert tile.getpixel((2, SIZE // 2))[3] == tile.getpixel((SIZE - 3, SIZE // 2))[3] == 255  # small ones are enlarged


def test_pictures_that_cannot_be_read_are_empty_tiles_and_one_warning(tmp_path):
    captions = [None] * 12
    shown = made(12, labels=False, dataset=Pictures(12, captions, broken=(1, 3)))
    (warning,) = write_site(tmp_path / "explore", shown, about(tmp_path), no_maps())
    assert warning.startswith("2 of 6 images cannot be read, and their tiles are empty: the image of sample 's2'")
    assert data(tmp_path / "explore", "run")["warnings"] == [warning]
    assert data(tmp_path / "explore", "samples")["thumb"][2:4] == [1, 1]
    with Image.open(tmp_path / "explore" / "sprites" / "0.webp") as sprite:
        assert sprite.convert("RGBA").crop((SIZE, 0, 2 * SIZE, SIZE)).getextrema()[3] == (0, 0)


def test_the_map_puts_latents_with_alike_decoders_together(tmp_path):
    shown = made(seed=1)
    with torch.no_grad():
        for latent in range(11):  # two kinds of directions, and a little of each latent's own
            kind = F.normalize(torch.eye(12)[latent % 2] + 0.1 * torch.eye(12)[latent], dim=0)
            for own in shown.space.segments.values():
                shown.space.decoder[latent, own] = kind
    write_site(tmp_path / "explore", shown, about(tmp_path), no_maps())
    columns = data(tmp_path / "explore", "latents")
    x = np.array(columns["x"][:11])
    even, odd = x[0::2], x[1::2]
    assert abs(even.mean() - odd.mean()) > 0.8
    assert max(np.ptp(even), np.ptp(odd)) < 0.2
    assert columns["x"][11] is columns["y"][11] is None
    assert (np.min(x), np.max(x)) == (0, 1)


def test_two_writes_give_the_same_bytes(written, tmp_path):
    stored = {0: LatentName("cat", 2, 0.9, 3.0, confirmed=True), 1: LatentName("plant", 1, 0.4, 1.5, confirmed=False)}
    shutil.copy(written.parent / "metrics.jsonl", tmp_path)
    write_site(tmp_path / "explore", made(stored=stored), about(tmp_path), no_maps())
    files = {path.relative_to(written): path.read_bytes() for path in written.rglob("*") if path.is_file()}
    again = tmp_path / "explore"
    assert {path.relative_to(again): path.read_bytes() for path in again.rglob("*") if path.is_file()} == files


@pytest.mark.parametrize(("count", "streams"), [(1, ("eye",)), (3, ("eye", "word")), (4, ("word",))])
def test_the_smallest_runs_have_a_page(count, streams, tmp_path):
    shown = made(count, labels=count == 3, streams=streams)
    write_site(tmp_path / "explore", shown, about(tmp_path, dataset=None), no_maps())
    run, columns = data(tmp_path / "explore", "run"), data(tmp_path / "explore", "latents")
    assert run["shown"] == count
    assert len(columns["name"]) == 12
    assert (columns["agreement"][0] is None) == (len(streams) == 1)
    assert all(0 <= value <= 1 for value in columns["x"] if value is not None)


def test_a_dictionary_without_a_live_latent_has_a_page(tmp_path):
    shown = made(4, streams=("eye",))
    with torch.no_grad():
        shown.space.encoders[0].zero_()
    silent = made(
        4,
        streams=("eye",),
        encodings=type(shown.encodings)(
            shown.space, shown.encodings.features, *[{"eye": shown.space.encode(shown.encodings.features)["eye"]}] * 2
        ),
    )
    write_site(tmp_path / "explore", silent, about(tmp_path), no_maps())
    assert set(data(tmp_path / "explore", "latents")["state"]) == {2}
    assert details(tmp_path / "explore") == [None] * 12


def test_an_error_leaves_the_old_site_and_nothing_else(shown, written, tmp_path, monkeypatch):
    folder = tmp_path / "explore"
    shutil.copytree(written, folder)
    monkeypatch.setattr(site, "bias_data", lambda shown: (_ for _ in ()).throw(OutOfMemory("no memory", hint="")))
    before = (folder / "data" / "run.js").read_bytes()
    with pytest.raises(OutOfMemory):
        write_site(folder, shown, about(tmp_path, version="2"), no_maps())
    assert (folder / "data" / "run.js").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["explore"]


def test_a_page_of_the_user_is_kept_and_a_link_is_followed(shown, tmp_path):
    mine = tmp_path / "explore"
    mine.mkdir()
    (mine / "index.html").write_text("my page")
    with pytest.raises(StorageError, match="is not a site that sparc wrote"):
        write_site(mine, shown, about(tmp_path), no_maps())
    assert (mine / "index.html").read_text() == "my page"
    (tmp_path / "disk").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "disk")
    for _ in range(2):
        write_site(link, shown, about(tmp_path), no_maps())
    assert (tmp_path / "disk" / "data" / "run.js").is_file()
    assert link.is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "explore", "link"]


def test_what_a_killed_writing_left_is_removed_and_a_folder_of_the_user_is_not(shown, tmp_path):
    (tmp_path / ".explore.999999999.abc.tmp" / "data").mkdir(parents=True)
    (tmp_path / "explore").mkdir()
    write_site(tmp_path / "explore", shown, about(tmp_path), no_maps())
    assert [path.name for path in tmp_path.iterdir()] == ["explore"]
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").touch()
    with pytest.raises(StorageError, match=r"mine holds something that sparc did not write, .*: thesis.txt"):
        write_site(mine, shown, about(tmp_path), no_maps())
    assert [path.name for path in mine.iterdir()] == ["thesis.txt"]


def test_a_site_knows_what_it_was_made_of(shown, tmp_path):
    write_site(tmp_path / "explore", shown, about(tmp_path, made_of="a" * 16), no_maps())
    assert is_made_of(tmp_path / "explore", "a" * 16)
    assert not is_made_of(tmp_path / "explore", "b" * 16)
    assert not is_made_of(tmp_path / "elsewhere", "a" * 16)


def test_of_many_samples_evenly_spread_ones_are_shown():
    chosen = evenly(300_000, MOST_SHOWN)
    assert len(chosen) == len(set(chosen.tolist())) == MOST_SHOWN
    assert (chosen[0], chosen[-1]) == (0, 299_985)
    assert set(np.diff(chosen).tolist()) == {15}
    assert evenly(3, MOST_SHOWN).tolist() == [0, 1, 2]
    assert evenly(7, 5).tolist() == [0, 1, 2, 4, 5]
    assert evenly(0, 5).tolist() == []


def test_hostile_texts_are_data_everywhere(tmp_path):
    wicked = '</script><img src=x onerror=alert(1)>\u2028\u202e"\\'
    captions = [wicked + kind for kind in kinds(60)]
    from sparc.plugins.contracts import Taxonomy

    evil = Taxonomy({wicked: [], "b": []})
    shown = made(
        dataset=Pictures(60, captions, evil, [wicked if kind == "cat" else "b" for kind in kinds(60)]),
        stored={0: LatentName(wicked, 0, 1.0, 3.0, confirmed=True)},
    )
    write_site(tmp_path / "explore", shown, about(tmp_path, name=wicked, dataset=(wicked, wicked)), no_maps())
    for path in (tmp_path / "explore" / "data").iterdir():
        assert not set(path.read_text(encoding="utf-8")) & set("<>&\u2028\u2029")
    assert data(tmp_path / "explore", "run")["name"] == wicked
    assert data(tmp_path / "explore", "latents")["name"][0] == wicked
    assert data(tmp_path / "explore", "sample/0")[0]["caption"] == captions[0]
    assert json.dumps(wicked) != wicked
    assert ANIMALS.max_depth == 2
