"""The page's folder holds libraries as they were released, and nothing that the page's own policy forbids."""

import hashlib
import re

from tests.explorer_page.site import PAGE

VENDOR = PAGE / "vendor"


def test_each_library_is_the_listed_release_with_its_licence_and_all_are_small():
    rows = [
        [cell.strip() for cell in line.split("|")] for line in (VENDOR / "VENDORED.md").read_text("utf-8").splitlines()
    ]
    listed = {row[6]: row[8] for row in rows if len(row) == 10 and re.fullmatch(r"[0-9a-f]{64}", row[8])}
    libraries = [path for path in VENDOR.iterdir() if path.suffix in {".js", ".css"}]
    assert listed == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in libraries}
    assert sum(path.stat().st_size for path in libraries) < 300_000
    names = {path.name.split(".")[0] for path in libraries}
    assert {path.name.removesuffix(".LICENSE.txt") for path in VENDOR.glob("*.LICENSE.txt")} == names


def test_the_page_lets_no_text_become_markup_and_names_no_address_to_load_from():
    index = (PAGE / "index.html").read_text("utf-8")
    assert "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:" in index
    assert not re.search(r"\son\w+\s*=|style=|<style|<script>", index)
    loaded = re.findall(r'(?:src|href)="([^"#:]+)"', index)
    assert sorted(loaded) == sorted(
        str(path.relative_to(PAGE)) for path in PAGE.rglob("*") if path.suffix in {".js", ".css"}
    )
    for path in (PAGE / "app").iterdir():
        text = path.read_text("utf-8")
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|https?://", text
        ), path
