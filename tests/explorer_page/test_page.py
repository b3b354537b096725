"""The page of `sparc explore` in a real browser, from the folder it lies in."""

import io
import itertools
import re

import numpy as np
import pytest
from PIL import Image
from scipy.stats import false_discovery_control, fisher_exact

from tests.explorer_page.site import CONCEPTS, STREAMS, Site

VIEWS = ("latents", "latent/0", "compare", "map", "samples", "sample/3", "bias?a=woman&b=nurse", "run")
DINO, CLIP, TEXT = (name for name, _, _ in STREAMS)


def names(page):
    return page.locator(".card .name").all_inner_texts()


def numbers(page):
    links = page.locator(".card").evaluate_all("cards => cards.map((card) => card.getAttribute('href'))")
    return [int(link.rsplit("/", 1)[1]) for link in links]


def wait_for_count(page, count):
    page.wait_for_function("count => document.querySelector('.count strong')?.textContent === String(count)", arg=count)


def test_the_first_view_says_in_one_sentence_what_the_page_is_and_shows_live_concepts(site, visit):
    page = visit(site)
    assert page.locator(".lead").inner_text().startswith("3 models share these 70 latents")
    wait_for_count(page, 69)
    assert "woman" in names(page)
    card = page.locator(".card", has_text="whale").first
    assert re.findall(r"(\S+)\n+([\d.]+)\s%", card.locator(".rates").inner_text()) == [
        (name, f"{100 * site.rate[name][0]:.1f}") for name in (DINO, CLIP, TEXT)
    ]
    assert card.locator("[role=img]").first.get_attribute("aria-label") == site.caption(int(site.fires[DINO][0][0]))
    assert page.title() == "Latents · planted · SPARC explorer"


def test_search_finds_as_one_types(site, visit):
    page = visit(site)
    first = "latent => document.querySelector('.card')?.getAttribute('href') === `#/latent/${latent}`"
    page.keyboard.press("/")
    for text, expected in {
        "whale": 0,  # a name
        "word4": 4,  # a word of the captions
        "wort": 0,  # not quite the beginning of a word
        "cafe": CONCEPTS.index("café"),
        "猫": CONCEPTS.index("猫が好き"),  # part of a script without spaces
        "قطة": CONCEPTS.index("قطة"),
        "wahle": 0,
        "#41": 41,
    }.items():
        page.keyboard.press("Control+A")
        page.keyboard.type(text)
        page.wait_for_function(first, arg=expected)
    assert page.url.endswith("q=%2341")


def test_the_link_of_a_search_and_of_filters_opens_the_same_concepts_again(site, visit):
    page = visit(site)
    page.get_by_role("button", name="Show only: Some streams").click()
    some = [latent for latent in range(site.latents) if site.state(latent) == 1]
    wait_for_count(page, len(some))
    page.get_by_label("Fires in stream").nth(0).select_option(DINO)
    in_dino = [latent for latent in some if len(site.fires[DINO][latent])]
    wait_for_count(page, len(in_dino))
    page.get_by_label("Order").select_option("number")
    assert numbers(page) == in_dino
    again = visit(site, page.url.split("#/")[1])
    wait_for_count(again, len(in_dino))
    assert numbers(again) == in_dino
    again.get_by_role("button", name=f"Remove the filter: fires in {DINO}").click()
    wait_for_count(again, len(some))


def test_filters_and_orders_follow_the_numbers(site, visit):
    latents = site.columns
    page = visit(site, "latents?agreement=0.5&purity=0.45&sort=frequent")
    live = [latent for latent in range(site.latents) if latents["state"][latent] != 2]
    kept = [
        latent for latent in live if latents["agreement"][latent] >= 0.5 and (latents["purity"][latent] or 0) >= 0.45
    ]
    rate = np.mean(list(site.rate.values()), axis=0)
    wait_for_count(page, len(kept))
    assert numbers(page) == sorted(kept, key=lambda latent: (-rate[latent], latent))
    page = visit(site, "latents?label=whale")
    wait_for_count(page, 1)
    page = visit(site, "latents?branch=people&sort=name")
    wait_for_count(page, 4)
    assert names(page) == sorted((CONCEPTS[latent] for latent in (1, 4, 7, 10)), key=str.casefold)
    page = visit(site, "latents?only=12,55,30&why=a%20red%20bus")
    wait_for_count(page, 3)
    assert numbers(page) == [12, 55, 30]
    page.get_by_role("button", name="Remove the filter: a red bus").click()
    wait_for_count(page, 69)


def test_a_card_opens_by_keyboard_and_the_way_back_keeps_filters_and_place(site, visit):
    page = visit(site, "latents?sort=number", viewport={"width": 1280, "height": 500})
    page.locator(".card").first.focus()
    for key in ("ArrowRight", "ArrowDown", "ArrowDown", "ArrowDown", "ArrowLeft", "ArrowDown"):
        page.keyboard.press(key)
    columns = page.evaluate("document.querySelector('.row').childElementCount")
    order = [latent for latent in range(site.latents) if latent != 5]
    chosen = order[4 * columns]
    assert page.evaluate("document.activeElement.getAttribute('href')") == f"#/latent/{chosen}"
    scrolled = page.evaluate("scrollY")
    assert scrolled > 300
    page.keyboard.press("Enter")
    page.wait_for_selector(f"text=latent {chosen}")
    page.keyboard.press("j")
    page.wait_for_selector(f"text=latent {order[4 * columns + 1]}")
    page.keyboard.press("k")
    page.wait_for_selector(f"text=latent {chosen}")
    page.get_by_text("← 69 latents").click()
    page.wait_for_selector(".card")
    page.wait_for_function("place => Math.abs(scrollY - place) < 2", arg=scrolled)
    assert page.url.endswith("#/latents?sort=number")


def test_a_concept_shows_all_models_side_by_side_with_its_numbers_and_heat_maps(site, visit):
    page = visit(site, "latent/0")
    assert page.locator("h1").inner_text() == "whale"
    heads = page.locator(".stream h3").all_inner_texts()
    assert heads == [f"{DINO} image", f"{CLIP} image · random weights, a control", f"{TEXT} text"]
    top = site.fires[DINO][0][:12]
    shots = page.locator(".stream").first.locator(".shot")
    assert [shot.get_attribute("title") for shot in shots.all()] == [site.caption(int(sample)) for sample in top]
    assert page.locator(".stream").nth(2).locator(".text").first.inner_text() == site.caption(
        int(site.fires[TEXT][0][0])
    )
    table = page.get_by_role("region", name="Jaccard of its labels").inner_text()
    assert re.findall(r"0\.\d\d", table) == ["0.20", "0.10", "0.40", "0.20", "0.60", "0.30"]
    pairs = page.get_by_role("region", name="Samples in which it fires").inner_text()
    assert f"{DINO} and {CLIP}" in pairs
    page.wait_for_selector(".chart canvas")
    assert page.locator(".chart canvas").count() == 3

    heat = "document.querySelector('.shot .heat')"
    assert page.evaluate(heat) is None
    shots.first.hover()
    assert page.evaluate(f"getComputedStyle({heat}).opacity") == "1"
    alphas = page.evaluate(
        f"[...{heat}.getContext('2d').getImageData(0, 0, 4, 4).data].filter((_, at) => at % 4 === 3)"
    )
    assert alphas == pytest.approx([value * 0.85 for value in range(0, 256, 16)], abs=1)
    page.mouse.move(5, 5)
    assert page.evaluate(f"getComputedStyle({heat}).opacity") == "0"
    shots.nth(1).focus()
    assert page.evaluate("document.activeElement.querySelector('.heat') !== null")
    page.get_by_role("button", name="Show where it fires").click()
    assert page.locator(".shot .heat").count() == len(top)
    assert page.evaluate(f"getComputedStyle({heat}).opacity") == "1"
    shots.first.click()
    page.wait_for_selector(".view-sample h1")
    assert page.locator("h1").inner_text() == site.caption(int(top[0]))


def test_compare_ranks_the_concepts_on_which_two_models_differ(site, visit):
    page = visit(site, f"compare?a={CLIP}&b={DINO}")
    one, two = site.fires[CLIP], site.fires[DINO]
    differ = {
        latent: len(np.setxor1d(a, b)) for latent, (a, b) in enumerate(zip(one, two, strict=True)) if len(a) and len(b)
    }
    worst = min(differ, key=lambda latent: (-differ[latent], latent))
    first = page.locator(".ranking").nth(0).locator(".tile").first
    assert first.get_attribute("href") == f"#/latent/{worst}"
    a, b = len(np.setdiff1d(one[worst], two[worst])), len(np.setdiff1d(two[worst], one[worst]))
    both = len(np.intersect1d(one[worst], two[worst]))
    assert f"{differ[worst]} samples: {CLIP} alone {a}, {DINO} alone {b}, both {both}" in first.inner_text()
    lacks = page.locator(".ranking").nth(2).locator(".tile")
    assert "#/latent/6" in [tile.get_attribute("href") for tile in lacks.all()]

    page.locator(".scatter").focus()
    page.keyboard.press("ArrowRight")
    tip = page.locator(".tip")
    name = tip.locator("strong").inner_text()
    place = tip.evaluate("tip => [tip.offsetLeft, tip.offsetTop]")
    page.locator(".scatter").press("Escape")
    page.locator(".scatter").hover(position={"x": place[0] - 14, "y": place[1] + 20})
    assert tip.is_visible()
    page.mouse.down()
    page.mouse.up()
    page.wait_for_selector(".view-latent h1")
    assert name
    page.go_back()
    page.get_by_label("Show").select_option("overlap")
    page.wait_for_selector("text=High up, both models fire")


def test_the_map_hides_branches_lights_up_words_and_opens_a_concept_by_keyboard(site, visit):
    page = visit(site, "map")
    legend = page.locator(".legend button")
    branches = [" ".join(text.split()) for text in legend.all_inner_texts()]
    assert branches == ["animals 4", "people 4", "things 3", "no branch 58"]
    legend.nth(3).click()
    assert "hide=-1" in page.url
    page.get_by_role("searchbox").fill("whale")
    page.wait_for_function("() => location.hash.includes('q=whale')")
    page.locator(".scatter").focus()
    page.keyboard.press("ArrowLeft")
    name = page.locator(".tip strong").inner_text()
    assert name in CONCEPTS
    page.keyboard.press("Enter")
    page.wait_for_selector(".view-latent h1")
    assert page.locator("h1").inner_text() == name


def test_a_sample_shows_what_all_models_find_in_it_and_what_each_concept_gives(site, visit):
    page = visit(site, "samples")
    wait_for_count(page, site.samples)
    page.get_by_role("searchbox").fill("nurse number 27")
    wait_for_count(page, 1)
    page.locator(".card").click()
    page.wait_for_selector(".codes")
    found = [{latent for latent, fires in enumerate(site.fires[name]) if 27 in fires} for name in (DINO, CLIP, TEXT)]
    agreed = set.intersection(*found)
    tiles = page.locator(".tiles .tile").evaluate_all(
        "tiles => tiles.map((tile) => Number(tile.getAttribute('href').split('/')[2]))"
    )
    assert set(tiles) == agreed
    assert f"{len(agreed)} of the {len(set.union(*found))} latents" in page.locator("main").inner_text()
    page.get_by_label("From → to").select_option(f"{TEXT}>{DINO}")
    assert page.locator(".parts li").all_inner_texts()[1].endswith("−10\u00a0%")
    assert "way=clip-text%3Edino" in page.url
    assert "Not in this sample" in visit(site, "sample/20").locator("main").inner_text()


def test_the_bias_check_passes_what_scipy_passes(site, visit):
    page = visit(site, "bias?a=woman&b=nurse")
    bias = site.bias()
    terms = {term["term"]: set(term["samples"]) for term in bias["terms"]}
    a, b = terms["woman"], terms["nurse"]
    tests, p_values = [], []
    for name in (DINO, CLIP, TEXT):
        there = set(range(len(bias["samples"]))) - set(bias["absent"].get(name, []))
        groups = [(a - b) & there, (b - a) & there, there - a - b]
        for latent, fires in enumerate(bias["fires"][name]):
            hits = [len(group & set(fires)) for group in groups]
            cells = [[hit, len(group) - hit] for hit, group in zip(hits, groups, strict=True)]
            tests.append((name, latent, cells))
            p_values.append(max(fisher_exact([cells[side], cells[2]], alternative="greater").pvalue for side in (0, 1)))
    passed = {tests[i][:2]: tests[i][2] for i in np.flatnonzero(false_discovery_control(p_values) <= 0.05)}
    assert {latent for _, latent in passed} >= {2}
    rows = page.get_by_role("region", name="Latents that couple").locator("tbody tr")
    shown = {}
    for row in rows.all():
        cells = row.locator("th, td")
        latent = int(cells.first.locator("a").get_attribute("href").rsplit("/", 1)[1])
        interval = cells.nth(2).locator(".interval").get_attribute("title")
        shown[cells.nth(1).inner_text(), latent] = (interval, cells.nth(4).inner_text())
    assert shown.keys() == passed.keys()
    for key, cells in passed.items():
        odds = [np.log((x + 0.5) * (cells[2][1] + 0.5) / (y + 0.5) / (cells[2][0] + 0.5)) for x, y in cells[:2]]
        side = int(np.argmin(odds))
        spread = 1.959964 * np.sqrt(sum(1 / (cell + 0.5) for cell in itertools.chain(cells[side], cells[2])))
        said = [
            float(number.replace(",", "")) for number in re.findall(r"[\d.,]*\d", shown[key][0].replace("95 %", ""))
        ]
        assert said == pytest.approx(np.exp([odds[side], odds[side] - spread, odds[side] + spread]), rel=0.01)
        assert shown[key][1] == f"{cells[0][0]} of {sum(cells[0])}"
    strongest = rows.first.locator("th a").get_attribute("href"), rows.first.locator("td").first.inner_text()
    fires = set(bias["fires"][strongest[1]][int(strongest[0].rsplit("/", 1)[1])])
    strips = page.locator(".evidence").first.locator(".strip")
    for strip, group in zip(strips.all(), (a - b, b - a), strict=True):
        links = [link.get_attribute("href") for link in strip.locator("a").all()]
        assert links == [f"#/sample/{sample}" for sample in sorted(group & fires)][:12]
    assert "on 20 shuffles of the labels" in page.locator(".verdict").inner_text()


def test_the_exact_test_of_the_bias_check_is_that_of_scipy(site, visit):
    random = np.random.default_rng(0)
    tables = []
    for group, others in random.integers(1, 400, (150, 2)):
        tables.append(
            [int(random.integers(0, group + 1)), int(group), int(random.integers(0, others + 1)), int(others)]
        )
    script = "const logs = Coupling.logFactorials(2001); return tables.map((table) => Coupling.fisher(...table, logs));"
    found = visit(site).evaluate(f"tables => {{ {script} }}", tables)
    expected = [fisher_exact([[a, n - a], [b, m - b]], alternative="greater").pvalue for a, n, b, m in tables]
    assert found == pytest.approx(expected, rel=1e-8, abs=1e-200)
    p_values = np.sort(random.uniform(0, 1, 60) ** 4)
    limit = visit(site).evaluate("values => Coupling.threshold(values, values.length)", p_values.tolist())
    assert limit == p_values[false_discovery_control(p_values) <= 0.05].max()


def test_the_bias_check_takes_any_words_and_says_when_there_are_too_few_samples(site, visit):
    page = visit(site, "bias")
    page.get_by_label("First term").fill("whale")
    page.get_by_label("Second term").fill("number 7")
    page.get_by_role("button", name="Check").click()
    page.wait_for_selector("text=Too few samples to tell.")
    assert "there are 20, 1 and 219" in page.locator("main").inner_text()
    page.get_by_label("Second term").fill("clock")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=No: no latent couples them.")
    page.get_by_label("Second term").fill("dragon")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=None of the 240 held-out samples of the check carries “dragon”, as a label")
    page.get_by_label("Second term").fill("pine tree")
    page.keyboard.press("Enter")
    proposal = page.locator(".suggest a", has_text="tree")
    proposal.click()
    page.wait_for_function("() => location.hash === '#/bias?a=whale&b=tree'")
    page.wait_for_selector("text=/No: no latent|Yes: .* latents? couple|Not beyond chance/")
    page.goto(page.url.replace("b=tree", "b=dragon"))
    page.wait_for_selector("text=carries “dragon”")
    assert page.url.endswith("#/bias?a=whale&b=dragon")


def test_the_run_says_what_was_measured_and_how_to_read_it(site, visit):
    page = visit(site, "run")
    text = page.locator("main").inner_text()
    assert "Falls as the streams are rebuilt better." in text
    assert re.search(r"Error\s+0.210\s+1\s+How far off. Lower is better.", text)
    page.locator("dt a", has_text="Duplicate").click()
    wait_for_count(page, 1)
    assert numbers(page) == [7]


def test_markup_in_any_text_of_the_data_stays_text(tmp_path, visit):
    site = Site(tmp_path, kind="hostile").write()
    page = visit(site)
    seen = ""
    for view in ("latents", "latent/0", "compare", "map", "samples", "sample/3", "bias", "run"):
        page.goto(f"{(tmp_path / 'index.html').as_uri()}#/{view}")
        page.wait_for_selector(f"main.view-{view.split('/')[0]} > *")
        page.wait_for_timeout(60)
        seen += page.locator("body").inner_text()
        assert page.evaluate("document.querySelectorAll('main img, main script, main style').length") == 0
    page.locator("nav a", has_text="Map").click()
    page.wait_for_selector(".scatter canvas")
    page.locator(".scatter").focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("window.attacked") is None
    of_latents = ["name", "also", "branch", "caption", "word", "label"]
    of_the_run = ["run", "dataset", "curve", "series", "read", "measure", "warning", "stream0", "stream1", "stream2"]
    for place in [*of_latents, *of_the_run, "id", "term2"]:
        attack = f"window.attacked='{place}'"
        assert f'<img src=x onerror="{attack}"><script>{attack}</script>&amp;' in seen, place


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_view_fits_a_narrow_screen_and_has_the_contrast_to_be_read(site, visit, scheme):
    page = visit(site, "latents", viewport={"width": 360, "height": 740}, color_scheme=scheme)
    for view in VIEWS:
        page.goto(f"{(site.folder / 'index.html').as_uri()}#/{view}")
        page.wait_for_selector(f"main.view-{re.split('[/?]', view)[0]} > *")
        page.wait_for_timeout(60)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, view
    read = "name => getComputedStyle(document.documentElement).getPropertyValue(name)"
    for ground, ink in itertools.product(("--ground", "--surface", "--tint"), ("--ink", "--soft", "--accent")):
        assert contrast(page.evaluate(read, ground), page.evaluate(read, ink)) >= 4.5, (ground, ink)
    assert contrast(page.evaluate(read, "--accent"), page.evaluate(read, "--on-accent")) >= 4.5


def contrast(one, two):
    def light(colour):
        channels = [int(colour.strip()[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((light(one), light(two)))
    return (high + 0.05) / (low + 0.05)


def test_the_colours_follow_the_system_until_the_reader_chooses(site, visit):
    page = visit(site, color_scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(ground) == "rgb(21, 20, 19)"
    page.get_by_role("button", name="Switch to the light colours").click()
    assert page.evaluate(ground) == "rgb(250, 249, 247)"
    page.reload()
    page.wait_for_selector(".card")
    assert page.evaluate(ground) == "rgb(250, 249, 247)"


def test_a_run_of_one_stream_without_labels_pictures_and_captions_is_shown_by_its_numbers(tmp_path, visit):
    site = Site(tmp_path, kind="bare").write()
    page = visit(site)
    assert page.locator(".lead").inner_text().startswith("One model uses these 70 latents")
    assert names(page)[0].startswith("Latent ")
    page.get_by_role("searchbox").fill("12")
    page.wait_for_function("() => document.querySelector('.card').getAttribute('href') === '#/latent/12'")
    assert page.get_by_role("searchbox").get_attribute("placeholder") == "Search numbers of latents …"
    words = page.locator("main").inner_text()
    assert not re.search("caption|label|some streams|no name found", words, re.IGNORECASE)
    expected = {"latent/0": "id-0", "compare": "one stream", "map": "A map", "sample/3": "id-3"}
    expected |= {"bias": "nothing to check", "run": "70 latents"}
    for view, text in expected.items():
        page.goto(f"{(tmp_path / 'index.html').as_uri()}#/{view}")
        page.wait_for_selector(f"main.view-{view.split('/')[0]} >> text={text}")


def test_a_missing_file_and_a_wrong_number_are_said(tmp_path, visit):
    site = Site(tmp_path).write()
    (tmp_path / "data" / "latent-0.js").unlink()
    page = visit(site, "latent/3")
    page.wait_for_selector("text=The file data/latent-0.js is missing from this folder.")
    page.goto(f"{(tmp_path / 'index.html').as_uri()}#/latent/70")
    page.wait_for_selector("text=There is no latent 70: they are numbered 0 to 69.")
    assert all("latent-0.js" in fault or "ERR_FILE_NOT_FOUND" in fault for fault in visit.faults)
    visit.faults.clear()


def test_eight_thousand_concepts_are_cards_only_where_one_looks(tmp_path, visit):
    site = Site(tmp_path, latents=8192, samples=60).write(chunks=1)
    page = visit(site, "latents?sort=number&state=shared,some,duplicate,dead")
    wait_for_count(page, "8,192")
    page.locator(".card").first.focus()
    page.keyboard.press("End")
    assert page.evaluate("document.activeElement.getAttribute('href')") == "#/latent/8191"
    page.wait_for_timeout(200)
    assert page.locator(".card").count() < 80
    page.evaluate("scrollTo(0, document.body.scrollHeight / 2)")
    middle = "document.elementFromPoint(innerWidth / 2, innerHeight / 2)?.closest('.card')?.dataset.index"
    page.wait_for_function(f"() => Math.abs({middle} - 4096) < 60")


def test_cards_are_filled_anew_and_not_made_anew_while_one_scrolls_and_types(tmp_path, visit):
    site = Site(tmp_path, latents=2000, samples=640).write(chunks=1)
    page = visit(site, "latents?sort=number&state=shared,some,duplicate,dead")
    page.evaluate("() => { window.cards = new Set(); }")
    for _ in range(12):
        page.mouse.wheel(0, 2500)
        page.wait_for_timeout(30)
        page.evaluate("() => document.querySelectorAll('.card').forEach((card) => cards.add(card))")
    page.wait_for_function("() => Number(document.querySelector('.card').dataset.index) > 200")
    assert page.evaluate("cards.size") <= 48
    shown = page.locator(".card").evaluate_all(
        "cards => cards.map((card) => [card.dataset.index, card.getAttribute('href')])"
    )
    assert [link for _, link in shown] == [f"#/latent/{index}" for index, _ in shown]
    assert sorted(int(index) for index, _ in shown) == [int(index) for index, _ in shown]
    page.get_by_role("searchbox").fill("whale")
    page.wait_for_function("() => document.querySelector('.card')?.getAttribute('href') === '#/latent/0'")
    assert page.locator(".card").first.locator(".name").inner_text().startswith("whale")


def test_a_thumbnail_is_the_tile_of_its_number_from_whichever_sprite(site, visit):
    page = visit(site, "sample/130")  # the third sprite holds 128 to 191, and its third tile is this
    page.wait_for_selector(".head .thumb canvas")
    with Image.open(site.folder / "sprites" / "2.webp") as sprite:
        expected = sprite.convert("RGB").crop((2 * 96, 0, 3 * 96, 96)).getpixel((30, 30))
    shot = page.locator(".head .thumb").screenshot()
    with Image.open(io.BytesIO(shot)) as picture:
        found = picture.convert("RGB").resize((96, 96)).getpixel((30, 30))
    assert found == pytest.approx(expected, abs=12)


def test_an_emoji_is_one_word_of_the_search_however_many_code_points_it_has(site, visit):
    page = visit(site)
    texts = ["👩🏽\u200d⚕\ufe0f nurse", "🇫🇷 flag", "🇷🇫 none", "1\ufe0f\u20e3 one", "❤ 1"]
    found = "([texts, text]) => Search.among(texts, text)"
    for text, places in {"🇫🇷": [1], "👩🏽\u200d⚕": [0], "👩": [], "1\u20e3": [3], "❤\ufe0f": [4], "1": [4]}.items():
        assert page.evaluate(found, [texts, text]) == places, text
