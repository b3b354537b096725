"""The benchmark with models small enough to compute by hand: they point right, baselines point right by chance."""

import numpy as np
import pytest
from PIL import Image

from sparc.errors import CorruptFile, InvalidConfig, MissingData
from sparc.localization.benchmark import (
    LocalizationFile,
    cases_of,
    chimeras_of,
    measure_all,
    measure_latents,
    measure_localization,
)
from sparc.localization.benchmark.cases import CELL
from sparc.plugins.contracts import Sample, Taxonomy
from tests.localization.mosaic import COLOURS, Eye, models, quarters


class Swatches:
    """Wide images of one colour each, with captions and labels."""

    def __init__(self, names=("red", "green", "blue", "red", "blue", "green", "blue", "red")):
        self.names = names
        self.ids = self.groups = [f"{number}-{name}" for number, name in enumerate(names)]
        self.taxonomy = Taxonomy({"colour": [], **{key: ["colour"] for key in (*COLOURS, "black")}})

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, index):
        image = Image.new("RGB", (30, 20), self.names[index])
        if self.names[index] == "green":
            image = Image.new("RGB", (30, 20), (0, 255, 0))  # Pillow's green is darker
        return Sample(self.ids[index], lambda: image, f"a {self.names[index]} thing")

    def labels(self):
        from scipy.sparse import csr_array

        columns = [self.taxonomy.labels.index(name) for name in self.names]
        return csr_array((np.ones(len(self)), (range(len(self)), columns)), shape=(len(self), 5))


class Segmented(Swatches):
    """Images of four quarters with a mask per colour."""

    def __getitem__(self, index):
        return Sample(self.ids[index], lambda: quarters("red", "blue", "green", "green", size=(40, 40)), "a photo")

    def masks(self, index):
        mask = {name: np.zeros((40, 40), bool) for name in ("red", "blue", "green", "black")}
        mask["red"][:20, :20] = mask["blue"][:20, 20:] = mask["green"][20:] = True
        return mask


def by_way(report):
    return {(way.target, way.method, way.selection): way for way in report.ways}


def test_a_canvas_has_four_images_whole_each_where_its_mask_is():
    dataset = Swatches()
    cases = list(cases_of(dataset, count=5, seed=1))
    assert len(cases) == 5
    for case in cases:
        image = np.asarray(case.sample.image())
        assert image.shape == (2 * CELL, 2 * CELL, 3)
        assert len(set(case.sample.id.split())) == 4
        for one in case.wanted:
            assert one.mask.sum() == CELL * CELL
            seen = image[one.mask].reshape(CELL, CELL, 3)
            # A 3:2 image in a square has white above and below.
            name = one.text.split()[1]
            assert tuple(seen[CELL // 2, CELL // 2]) == COLOURS[name]
            assert tuple(seen[5, CELL // 2]) == (255, 255, 255)
    again = list(cases_of(dataset, count=5, seed=1))
    assert [case.sample.id for case in cases] == [case.sample.id for case in again]
    assert [case.sample.id for case in cases] != [case.sample.id for case in cases_of(dataset, count=5, seed=2)]


def test_what_several_images_of_a_canvas_are_names_none_of_them():
    cases = list(cases_of(Swatches(), count=20))
    for case in cases:
        names = [one.text.split()[1] for one in case.wanted]
        for name, one in zip(names, case.wanted, strict=True):
            assert one.concepts == ((name,) if names.count(name) == 1 else ())


def test_a_chimera_has_the_upper_half_of_one_image_and_the_lower_half_of_another():
    case, *_ = chimeras_of(Swatches(("red", "green")), count=1)
    upper, lower = (COLOURS[one.text.split()[1]] for one in case.wanted)
    image = np.asarray(case.sample.image())
    assert image.shape == (2 * CELL, 2 * CELL, 3)
    # A 3:2 image in a square: rows above 75 and below 373 of 448 are white.
    for row, seen in ((5, (255, 255, 255)), (CELL - 5, upper), (CELL + 5, lower), (2 * CELL - 5, (255, 255, 255))):
        assert tuple(image[row, CELL]) == seen
    above, below = (one.mask for one in case.wanted)
    assert above[:CELL].all()
    assert not above[CELL:].any()
    assert (below == ~above).all()
    assert [one.concepts for one in case.wanted] == [("green",), ("red",)][:: 1 if upper == COLOURS["green"] else -1]


def test_parts_of_a_chimera_are_told_apart_by_models_that_see_colours():
    report = measure_localization(models(), chimeras_of(Swatches(("red", "green", "blue")), count=6), perturb=0)
    found = by_way(report)
    assert (report.images, report.chance) == (6, 0.5)
    assert found["caption", "dense", "joint"].queries == 12
    assert found["caption", "dense", "joint"].pointing == 1
    assert found["caption", "dense", "joint"].deletion is None


def test_latents_that_one_image_of_a_canvas_alone_keeps_are_found_there():
    dataset = Swatches(("red", "red", "red", "green", "blue", "black"))
    canvases = cases_of(dataset, count=12)
    reports = [one for one in measure_latents(models(), canvases) if one.method == "dense"]
    asked = 0
    for case in canvases:
        names = [one.text.split()[1] for one in case.wanted]
        asked += sum(names.count(colour) == 1 for colour in COLOURS)
    assert sum(one.queries for one in reports) == asked
    # Three of six images keep the latent of red, one each the others; rare latents come first.
    assert [one.frequency for one in reports] == sorted(one.frequency for one in reports)
    assert reports[0].frequency == pytest.approx(1 / 6)
    # The white bands of the other images have a third of each colour, which is below half of the range.
    assert [(one.pointing, one.breadth) for one in reports] == [(1, 0.25)] * 3


def test_maps_of_latents_that_are_the_same_everywhere_are_broad_and_point_nowhere():
    blind = Eye()
    blind.forward_tokens = lambda batch: (blind.forward(batch), blind.forward(batch).unsqueeze(1).expand(-1, 4, -1))
    reports = measure_latents(models(eye=blind), cases_of(Swatches(("red", "green", "blue", "black")), count=3))
    assert {(one.pointing, one.breadth) for one in reports if one.method == "dense"} == {(0, 1)}


def test_models_that_see_and_read_colours_point_right_and_baselines_at_chance():
    dataset = Swatches(("red", "green", "blue", "black"))
    report = measure_localization(models(names={0: "red", 2: "blue"}), cases_of(dataset, count=12))
    found = by_way(report)
    assert (report.images, report.chance, report.match) == (12, 0.25, None)
    # The tongue does not know black, so its map is empty. The others are found: white has less of their colour.
    assert found["caption", "dense", "joint"].pointing >= 0.75
    assert found["caption", "dense", "solo"].miou > 0.4
    assert found["concept", "dense", "solo"].pointing == 1
    assert found["concept", "dense", "solo"].queries == 24
    # All four cells of this grid are equally near the centre, so the map is constant and has no peak.
    assert found["", "centre", ""].pointing == 0
    assert found["", "activation", ""].likeness == pytest.approx(1)
    assert abs(found["", "random", ""].pointing - 0.25) < 0.2
    assert found["caption", "dense", "joint"].deletion < found["caption", "dense", "joint"].insertion
    assert report.refused == {
        "eye relevance": "stream 'eye': expected attention over all 4 tokens in every layer, found none"
    }


def test_masks_of_a_segmented_dataset_are_pointed_at_by_the_names_of_their_categories():
    report = measure_localization(models(), cases_of(Segmented()))
    found = by_way(report)
    assert (report.images, report.match) == (8, 0.2)
    assert found["caption", "dense", "joint"].queries == 24  # black is in no image
    assert found["caption", "dense", "joint"].pointing == 1
    assert found["caption", "dense", "joint"].miou > 0.7
    assert found["caption", "dense", "joint"].map == 1
    assert report.chance == pytest.approx((0.25 + 0.25 + 0.5) / 3)


def test_the_same_seed_gives_the_same_numbers():
    made = models()
    first, second = (measure_localization(made, cases_of(Swatches(), count=6), seed=3) for _ in range(2))
    assert first == second


def test_an_eye_and_a_tongue_of_one_space_are_compared_without_ours():
    made = models()
    siblings = type(made)(made.space, made.backbones, made.modalities, shared_spaces={"eye": "one", "tongue": "one"})
    found = by_way(measure_localization(siblings, cases_of(Segmented())))
    assert found["", "similarity", ""].pointing == 1
    assert ("", "similarity", "") not in by_way(measure_localization(made, cases_of(Segmented())))


def test_images_that_do_not_decode_are_left_out():
    from sparc.errors import BadSample

    class Broken(Swatches):
        def __getitem__(self, index):
            def broken():
                raise BadSample("no image", hint="none")

            return Sample(self.ids[index], broken, "red") if index == 0 else super().__getitem__(index)

    cases = cases_of(Broken(), count=10)
    assert 0 < len(list(cases)) < len(cases) == 10


def test_what_cannot_be_measured_is_said():
    blind = Eye()
    blind.grid = None
    with pytest.raises(InvalidConfig, match="no image stream of the run has a grid"):
        measure_localization(models(eye=blind), cases_of(Swatches(), count=2))
    with pytest.raises(MissingData, match="expected 4 held-out images or more, found 3"):
        cases_of(Swatches(("red", "green", "blue")))
    with pytest.raises(MissingData, match="expected 2 held-out images or more, found 1"):
        chimeras_of(Swatches(("red",)))
    unseen = Segmented()
    unseen.masks = lambda index: {}
    with pytest.raises(MissingData, match="no held-out image has anything to point at"):
        measure_localization(models(), cases_of(unseen))


def test_everything_about_canvases_is_measured_and_goes_to_a_file_and_back(tmp_path, monkeypatch):
    monkeypatch.setattr("sparc.localization.benchmark.cases.CANVASES", 3)
    made, canvases = models(), cases_of(Swatches(), seed=1)
    seen = []
    found = measure_all(
        made, canvases, dataset="swatches", split="test", seed=1, on_case=lambda *progress: seen.append(progress)
    )
    assert seen == [(part, done, 3) for part in ("localize", "parts", "latents") for done in range(4)]
    assert found.report == measure_localization(made, canvases, seed=1)
    assert found.parts == measure_localization(made, chimeras_of(Swatches(), seed=1), perturb=0, seed=1)
    assert found.latents == measure_latents(made, canvases, seed=1)
    found.write(tmp_path / "localization.json")
    assert LocalizationFile.read(tmp_path / "localization.json") == found


def test_a_segmented_dataset_has_no_parts_and_no_latents_to_measure():
    found = measure_all(models(), cases_of(Segmented()), dataset="segmented", split="val")
    assert (found.parts, found.latents, found.dataset, found.split) == (None, (), "segmented", "val")


def test_a_file_that_is_no_localization_is_named_with_what_is_wrong(tmp_path):
    path = tmp_path / "localization.json"
    path.write_text('{"dataset": "it"}')
    with pytest.raises(CorruptFile, match=r"this version's format: .*localization\.json \(split: Field required"):
        LocalizationFile.read(path)
