"""What the page says of its lists and numbers: orders, empty lists, similar words, counts, places."""

import pytest

from tests.explorer_page.site import CONCEPTS, STREAMS, Site
from tests.explorer_page.test_page import numbers, wait_for_count

DINO, CLIP, TEXT = (name for name, _, _ in STREAMS)


def order_says(page):
    return page.get_by_label("Order").evaluate("field => field.selectedOptions[0].textContent")


def main_text(page):
    return " ".join(page.locator("main").inner_text().split())


def test_the_order_is_called_what_it_is_and_latents_that_it_puts_last_are_said(site, visit):
    page = visit(site)
    assert order_says(page) == "Best first"
    page.get_by_role("searchbox").fill("whale")
    page.wait_for_function("() => location.hash.endsWith('q=whale')")
    assert order_says(page) == "Nearest to the search"
    page = visit(site, "latents?only=12,55,30&why=x")
    wait_for_count(page, 3)
    assert (order_says(page), numbers(page)) == ("As listed", [12, 55, 30])
    page.goto(page.url.split("#")[0] + "#/latents?sort=disagreement")
    page.wait_for_selector("text=come last")
    live = [latent for latent in range(site.latents) if site.state(latent) != 2]
    rare = {latent for latent in live if min(len(fires[latent]) for fires in site.fires.values()) < 5}
    assert f"The {len(rare)} latents that fire in fewer than 5 samples of some stream come last" in main_text(page)
    shown = numbers(page)
    assert shown == sorted(set(live) - rare, key=lambda latent: site.columns["agreement"][latent])[: len(shown)]


def test_an_empty_list_of_latents_says_why_it_is_empty(tmp_path, visit):
    site = Site(tmp_path).write()
    page = visit(site, "latents?q=zzzzqqqq")
    page.wait_for_selector("text=No latent matches the search.")
    for link, text in {
        "latents?q=zzzzqqqq&agreement=0.5": "No latent that passes these filters matches the search.",
        "latents?agreement=0.95&purity=0.95": "No latent passes these filters.",
        "latents?state=none": "No state is ticked under Filters, so no latent is shown.",
    }.items():
        page.goto(f"{(tmp_path / 'index.html').as_uri()}#/{link}")
        page.wait_for_selector(f"text={text}")
    page.get_by_role("button", name="Remove the filter: no state").click()
    wait_for_count(page, 69)
    run = tmp_path / "data" / "run.js"
    run.write_text(
        run.read_text("utf-8").replace('{"format"', '{"duplicate": 0.9, "nearest_pair": [3, 8, 0.4321], "format"'),
        "utf-8",
    )
    site.state = lambda latent: 0
    site.write_latents()
    page.goto(f"{(tmp_path / 'index.html').as_uri()}#/latents?state=duplicate")
    page.reload()
    page.wait_for_selector("text=None of the latents is of this kind")
    said = main_text(page)
    assert "a cosine of 0.9 or more in each stream. Nearest to that are nurse (3) and café (8): 0.43 in" in said


def test_each_list_says_whether_it_holds_the_words_or_similar_ones(site, visit):
    page = visit(site, "latents?q=wahle")
    page.wait_for_selector("text=20 samples have similar words")
    assert "of 70 latents; no latent has these words, so these have similar ones" in main_text(page)
    page.get_by_role("searchbox").fill("number 27")
    page.wait_for_selector("text=/^1 sample has these words/")
    page = visit(site, "samples?q=wahle")
    wait_for_count(page, 20)
    assert "no sample has these words, so these have similar ones" in main_text(page)
    page.get_by_role("searchbox").fill("whale")
    page.wait_for_function("() => !document.querySelector('.count').textContent.includes('similar')")


def test_numbers_that_round_to_zero_have_no_sign(site, visit):
    page = visit(site)
    values = [-0.004, -0.0, 0.004, -0.006, -1.5, -10]
    assert page.evaluate("values => values.map((value) => Format.number(value))", values) == [
        "0.00",
        "0.00",
        "0.00",
        "−0.01",
        "−1.50",
        "−10.00",
    ]


def test_the_purity_of_a_label_is_its_share_of_the_samples_counted_beside_it(site, visit):
    page = visit(site, "latent/0")
    (row,) = page.get_by_role("region", name="Labels of its samples").locator("tbody tr").all()
    assert row.locator("th, td").all_inner_texts() == ["whale", "10", "20", "83\u00a0%", "yes"]  # 10 of its 12 samples
    facts = [" ".join(fact.split()) for fact in page.locator(".fact").all_inner_texts()]
    assert "Purity 83 % whale" in facts
    assert f"Name fits {100 * site.columns['sure'][0]:.0f} % in the half that did not choose it" in facts
    assert "on average 3 samples a stream, 2.5 × chance" in main_text(page)
    counts = page.evaluate("[0, 1, 3, 4, 11, 12].map(Charts.heights)")
    assert counts == [[0, 1], [0, 1], [0, 3], [0, 2, 4], [0, 11], [0, 6, 12]]
    button = page.get_by_role("button", name="Show where it fires")
    button.click()
    page.get_by_role("button", name="Hide where it fires").click()
    assert page.locator(".heated").count() == 0
    assert button.is_visible()


def test_a_tab_opens_a_view_at_its_top_and_back_returns_to_the_place(site, visit):
    page = visit(site, viewport={"width": 1280, "height": 500})

    def choose(tab):
        # A click of the driver would scroll first, since the menu sticks to the top.
        page.locator("nav a", has_text=tab).evaluate("link => link.click()")
        page.wait_for_selector(f"main.view-{tab.lower()} .card")

    page.wait_for_selector(".card")
    page.evaluate("scrollTo(0, 700)")
    choose("Samples")
    assert page.evaluate("scrollY") == 0
    page.go_back()
    page.wait_for_function("() => Math.abs(scrollY - 700) < 2")
    choose("Samples")
    page.evaluate("scrollTo(0, 300)")
    for _ in range(2):  # from another view, and from the view itself
        choose("Latents")
        page.wait_for_function("() => scrollY === 0")
        page.evaluate("scrollTo(0, 300)")


def test_the_bias_check_counts_both_terms_while_one_types(site, visit):
    page = visit(site, "bias")
    counts = page.locator(".carried")
    page.get_by_label("First term").type("whale")
    page.wait_for_function("() => document.querySelector('.carried').textContent === 'whale: 20 samples'")
    page.get_by_label("Second term").type("tall")
    page.wait_for_function("() => document.querySelector('.carried').textContent.includes('tall: 8')")
    # tall: samples 0 to 6 and 14; of these 0 is a whale
    assert counts.inner_text() == "whale: 20 samples, 19 without the other; tall: 8 samples, 7 without the other"
    assert "second term." not in main_text(page)
    page.get_by_label("First term").fill("number 7")
    page.get_by_label("Second term").fill("dragon")
    page.wait_for_function("() => document.querySelector('.carried').textContent.includes('dragon')")
    assert counts.inner_text() == "number 7: 1 sample (5 needed); dragon: no sample (5 needed)"


def test_terms_near_one_of_several_words_are_those_near_each_word(site, visit):
    page = visit(site, "bias?a=clock&b=whale%2019")
    page.wait_for_selector("text=/Near “whale 19”/")
    # No sample is called both; sample 19 is a house.
    assert CONCEPTS[19 % len(CONCEPTS)] == "house"
    assert page.locator(".suggest a").all_inner_texts()[-2:] == ["whale", "house"]


@pytest.mark.parametrize("view", ["compare", "map"])
def test_a_narrow_touch_screen_hears_of_fingers_and_not_of_mice(site, visit, view):
    page = visit(site, view, viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    page.wait_for_selector(".scatter canvas")
    hint = page.locator(".hint").inner_text()
    assert "Tap a dot" in hint
    assert "double click" not in hint
    box, tall = page.locator(".scatter").bounding_box(), page.evaluate("innerHeight")
    canvas = page.locator(".scatter canvas").bounding_box()
    assert canvas["x"] + canvas["width"] <= box["x"] + box["width"] - 9  # within the padding
    if view == "map":
        assert page.locator(".legend").bounding_box()["height"] <= tall / 3 + 1
    else:
        assert page.locator(".ranking").first.bounding_box()["y"] < box["y"]
    tab, tabs = page.locator("#tabs a[aria-current]").bounding_box(), page.locator("#tabs").bounding_box()
    assert tabs["x"] <= tab["x"]
    assert tab["x"] + tab["width"] <= tabs["x"] + tabs["width"]


def test_tables_of_a_narrow_screen_are_lines_that_name_their_columns_and_run_under_no_edge(site, visit):
    for view in ("latent/0", "bias?a=woman&b=nurse", "run"):
        page = visit(site, view, viewport={"width": 360, "height": 740})
        page.wait_for_selector("tbody tr")
        wide = page.locator(".scroll").evaluate_all("all => all.map((one) => one.scrollWidth - one.clientWidth)")
        assert max(wide) <= 0, view
    before = "cell => [cell.dataset.head, getComputedStyle(cell, '::before').content]"
    head, content = page.locator("td", has_text="0.21").evaluate(before)
    assert head == "value"
    assert content != "none"
    assert page.locator("thead").last.bounding_box()["height"] <= 1


def test_a_list_of_compare_names_both_models_once_it_is_a_chip(tmp_path, visit):
    site = Site(tmp_path, latents=70).write()
    page = visit(site, f"compare?a={CLIP}&b={DINO}")
    page.locator(".ranking").first.locator("a", has_text="as cards").click()
    page.wait_for_selector(".chip")
    assert page.locator(".chip").inner_text().startswith(f"{CLIP} and {DINO} disagree most on")
    assert order_says(page) == "As listed"
