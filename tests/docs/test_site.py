"""The site is whole, says nothing to the network, and is legible on a phone and to everybody."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import launcher.report
from launcher.core.dag import Graph, Step
from launcher.dag import page, schedule
from launcher.report import compare
from tests.docs import pages
from tests.docs.blocks import ROOT
from tests.report import runs
from tests.report.browser import CHROMIUM, DRIVER, Browser, browser

pytest.importorskip("mkdocs", reason="needs the extra docs")
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)\s]*)?\)")
# what a browser fetches by itself; a link in a sentence may lead anywhere
FETCHED = re.compile(r'<(?:script|img|iframe|link)\b[^>]*?(?:src|href)="(https?:)?//[^"]*"')
FIGURE = re.compile(r"(?<![\d.])\d+(?:\.\d+)?(?:e\+\d+)?(?![\d.])")
needs_chromium = pytest.mark.skipif(
    not CHROMIUM.exists() or not DRIVER.exists(), reason="needs Chromium"
)
SEARCH = """
const done = arguments[arguments.length - 1], field = document.querySelector('.md-search__input');
document.querySelector('#__search').click();
field.focus();
const look = tries => {
  const hits = [...document.querySelectorAll('.md-search-result__link')];
  if (hits.length || !tries) return done(hits.map(link => link.getAttribute('href')));
  field.value = 'preemption';
  field.dispatchEvent(new Event('input', {bubbles: true}));
  field.dispatchEvent(new KeyboardEvent('keyup', {bubbles: true}));
  setTimeout(look, 300, tries - 1);
};
look(60);
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    folder = tmp_path_factory.mktemp("site")
    pages.build(folder)
    return folder


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser for all pages."""
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def test_it_is_built_without_a_warning_and_fetches_nothing(site: Path) -> None:
    built = sorted(site.rglob("*.html"))
    assert len(built) > 25
    fetched = {found[0] for path in built for found in FETCHED.finditer(path.read_text())}
    assert fetched == set()
    assert not list(site.rglob("*.py"))


def test_what_commands_need_is_said_on_the_page(site: Path) -> None:
    page = (site / "tutorials" / "laptop.html").read_text()
    assert '<p class="needs">needs: GPU</p>' in page
    assert "<!-- needs" not in page


def test_the_menu_and_the_readme_name_each_page_once() -> None:
    menu = re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text().partition("\nnav:")[2])
    readme = LINK.findall((ROOT / "README.md").read_text().partition("\n## More\n")[2])
    for names in (menu, readme):
        assert names
        assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_of_pages_outside_the_site_lead_somewhere(name: str) -> None:
    links = [link for link in LINK.findall((ROOT / name).read_text()) if "://" not in link]
    assert links or name == "CHANGELOG.md"
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_figures_beside_others_are_those_of_the_benchmarks() -> None:
    measured = {row[-1]: row for row in _rows("benchmarks.md")}
    compared = _rows("comparison.md")
    assert len(compared) == 5
    for _, ours, theirs, command in compared:
        known = [float(word) for word in FIGURE.findall(" ".join(measured[command]))]
        for figure in (ours, theirs.split(":")[1]):
            assert float(figure.split()[0].replace(",", "")) in known, (command, figure)


def _rows(name: str) -> list[list[str]]:
    lines = (ROOT / "docs" / name).read_text().splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line[:1] == "|"]
    return [row for row in rows if "python -m benchmarks" in row[-1]]


@pytest.mark.browser
@needs_chromium
def test_its_search_works_from_a_disk(site: Path, session: Browser) -> None:
    session.open(site / "index.html")
    hits = session.run_async(SEARCH)
    assert any("reliability.html" in hit for hit in hits), hits


@pytest.mark.browser
@needs_chromium
@pytest.mark.parametrize("name", ["index", "comparison", "configuration", "reference/cli"])
def test_a_page_fits_a_phone_and_complains_of_nothing(
    site: Path, session: Browser, name: str
) -> None:
    session.open(site / f"{name}.html")
    session.resize(pages.PHONE)
    assert pages.fits(session, pages.PHONE)
    assert session.log("browser") == []


def own_pages(folder: Path) -> list[Path]:
    """A report, a comparison and a recipe's graph."""
    one, other = runs.full_run(folder / "first", video=False), runs.new_run(folder / "second")
    runs.add_outcomes(other, "rdt", "SFFSSFFSFFFFSSFFSFSS")
    reports = [launcher.report.build(run.root) for run in (one, other)]
    comparison = launcher.report.build_comparison(compare.compare(reports, []))
    steps = (Step("a", ("true",), expected_s=2), Step("b", ("true",), needs=("a",), expected_s=5))
    graph = Graph("made", steps, "/", {})
    (folder / "graph.html").write_text(page.render(graph, "about", schedule.plan(graph), "again"))
    return [one.report / "index.html", comparison, folder / "graph.html"]


@pytest.mark.slow
@pytest.mark.browser
@needs_chromium
def test_nothing_serious_keeps_anybody_out(site: Path, session: Browser, tmp_path: Path) -> None:
    paths = [path for path in site.rglob("*.html") if path.name != "404.html"]  # a server's page
    found: dict[str, list[Any]] = {}
    for path in [*sorted(paths), *own_pages(tmp_path)]:
        found |= pages.trouble(session, path)
    assert found == {}
