"""One headless Chromium for all tests of the page, and the sites that it opens."""

import os
import shutil

import pytest

from tests.explorer_page.site import Site

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="session")
def browser():
    if BROWSER is None:
        pytest.skip("no browser is installed: apt-get install chromium")
    driver = pytest.importorskip("playwright.sync_api", reason="no driver is installed: pip install playwright")
    # Chromium refuses its sandbox to root, as whom tests in a container run.
    options = ["--no-sandbox"] if os.geteuid() == 0 else []
    with driver.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=options)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    return Site(tmp_path_factory.mktemp("site")).write()


@pytest.fixture
def visit(browser):
    """Open a link of a site. At the end, nothing may have been logged, failed, or asked of anything but files."""
    contexts, faults = [], []

    def open_page(site, link="", **options):
        context = browser.new_context(
            **{"viewport": {"width": 1280, "height": 900}, "reduced_motion": "reduce", **options}
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(15_000)  # the machine may be busy
        page.on("console", lambda message: faults.append(message.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("requestfailed", lambda request: faults.append(f"failed: {request.url}"))
        page.on("request", lambda request: request.url.startswith("file:") or faults.append(f"asked: {request.url}"))
        page.goto(f"{(site.folder / 'index.html').as_uri()}#/{link}")
        page.wait_for_selector("main > :not(.loading)")
        return page

    open_page.faults = faults
    yield open_page
    for context in contexts:
        context.close()
    assert faults == []
