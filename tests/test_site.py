"""The site: it builds without a warning, and all can find their way and read on it.

`make site` builds it in out/site; here it goes to a folder of its own. Links to other
hosts are not followed: no test needs a network.
"""

import functools
import http.server
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from bs4 import BeautifulSoup

from browser import chromium
from docstrings import all_wings, failures
from lite import light
from notebooks import ROOT, find, name, question, read, teaching

PAGES = [
    "index.html",
    "notebooks/02_the_graph_of_clients.html",
    "notebooks/06_when_clients_differ.html",
    "notebooks/08_correcting_the_drift.html",
    "notebooks/failures.html",
    "notebooks/glossary.html",
    "notebooks/house.html",
    "notebooks/protocols.html",
    "notebooks/teachers_guide.html",
    "notebooks/site/api.html",
    "notebooks/site/api/gossiplib.core.server.html",
    "search.html?q=spectral+gap",
]
#: Rules of axe that the theme breaks in a way that cannot be mended here, and why.
OF_THE_THEME: dict[str, str] = {}


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


def build(root, folder, *options):
    """Build the pages of a copy of the project; return where they are."""
    built = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", *options]
        + ["-c", root / "notebooks" / "site", "-d", folder / "doctrees"]
        + [root, folder / "html"],
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    return folder / "html"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder with the site's pages, built as `make site` does."""
    # Sphinx leaves the pages of modules that are gone.
    shutil.rmtree(ROOT / "notebooks" / "site" / "api", ignore_errors=True)
    return build(ROOT, tmp_path_factory.mktemp("site"), "-W", "--keep-going")


@pytest.fixture(scope="module")
def parsed(site):
    """Each page of the site: its path, and what is in it."""
    return {
        path.relative_to(site).as_posix(): BeautifulSoup(
            path.read_bytes(), "html.parser"
        )
        for path in sorted(site.rglob("*.html"))
        if "_static" not in path.parts
    }


@pytest.fixture(scope="module")
def address(site):
    handler = functools.partial(Quiet, directory=site)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def browser():
    with chromium() as one:
        yield one


def test_all_notebooks_are_there_and_none_was_run(parsed):
    for path in find(ROOT) + teaching(ROOT):
        page = parsed[path.relative_to(ROOT).with_suffix(".html").as_posix()]
        assert question(read(path)) in page.h1.get_text()
        cells = [c for c in read(path).cells if c.cell_type == "code" and c.source]
        assert len(page.select("div.cell_input")) == len(cells)


def test_the_api_has_every_module(parsed):
    paths = [*(ROOT / "gossiplib").glob("*.py"), *(ROOT / "gossiplib").glob("*/*.py")]
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in paths
        if not path.stem.startswith("_")
    }
    listed = parsed["notebooks/site/api.html"].select("td:first-child")
    assert modules == {td.get_text() for td in listed}
    for module in modules:
        assert parsed[f"notebooks/site/api/{module}.html"].select("dl.py")


def test_public_names_say_what_they_take_give_and_raise():
    assert failures(all_wings()) == []


def test_one_can_read_on_from_page_to_page(parsed):
    page, seen = "index.html", []
    while True:
        following = parsed[page].select_one("a.right-next")
        if following is None:
            break
        page = urljoin(page, following["href"])
        seen.append(Path(page).stem)
    series = [path.stem for path in find(ROOT)]
    assert seen[: len(series)] == series
    assert {"glossary", "teachers_guide", "api"} <= set(seen)


def test_links_within_the_site_arrive(site, parsed):
    ids = {
        path: {tag.get("id") or tag.get("name") for tag in page.select("[id], a[name]")}
        for path, page in parsed.items()
    }
    broken, followed = [], 0
    for path, page in parsed.items():
        for tag in page.select("a[href], link[href], script[src], img[src]"):
            link = urlsplit(tag.get("href") or tag.get("src"))
            if link.scheme or link.netloc or "lite" in link.path.split("/"):
                continue  # what is in lite, test_lite.py tests
            followed += 1
            target = unquote(urljoin(path, link.path)) if link.path else path
            fragment = unquote(link.fragment)
            if not (site / target).is_file():
                broken.append((path, target))
            elif fragment and target in ids and fragment not in ids[target]:
                broken.append((path, f"{target}#{fragment}"))
    assert broken == [] and followed > 1000


def test_buttons_lead_to_the_repository_where_it_has_an_address(parsed, tmp_path):
    page = "notebooks/02_the_graph_of_clients"
    (tmp_path / "notebooks").mkdir()
    for file in ("README.md", f"{page}.ipynb"):
        shutil.copy(ROOT / file, tmp_path / file)
    shutil.copytree(ROOT / "notebooks" / "site", tmp_path / "notebooks" / "site")
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    text = re.sub("(?m)^Repository = .*\n", "", text)
    line = '[project.urls]\nRepository = "https://github.com/someone/gossip"'
    told = text.replace("[project.urls]", line)
    (tmp_path / "pyproject.toml").write_text(told, "utf-8")
    # The other pages are not there, so links to them are warnings.
    built = build(
        tmp_path, tmp_path / "out", "-Q", "-D", "exclude_patterns=*/site/api*"
    )
    found = BeautifulSoup((built / f"{page}.html").read_bytes(), "html.parser")
    buttons = [a["href"] for a in found.select(".article-header-buttons a[href]")]
    there, colab = "someone/gossip", "https://colab.research.google.com/github"
    assert [href.split("?title")[0] for href in buttons] == [
        f"https://mybinder.org/v2/gh/{there}/main?urlpath=lab/tree/{page}.ipynb",
        f"{colab}/{there}/blob/main/{page}.ipynb",
        f"https://github.com/{there}",
        f"https://github.com/{there}/edit/main/{page}.ipynb",
        f"https://github.com/{there}/issues/new",
    ]
    if "Repository =" not in (ROOT / "pyproject.toml").read_text("utf-8"):
        assert parsed[f"{page}.html"].select(".article-header-buttons a[href]") == []


def test_what_answers_a_guess_is_folded(parsed):
    used = 0
    for path in find(ROOT):
        page = parsed[path.relative_to(ROOT).with_suffix(".html").as_posix()]
        guesses = set()
        for cell in page.select("div.cell"):
            source = cell.select_one(".cell_input").get_text().strip()
            asked = re.findall(r"(?m)^(my_\w+) = None", source)
            output = cell.select_one(".cell_output")
            if len(asked) == len(source.splitlines()):
                guesses |= set(asked)
            elif output and guesses & set(re.findall(r"\w+", source)):
                assert output.find_parent("details"), (path.name, source)
                used += 1
    assert used > 40


def test_notebooks_that_run_in_the_browser_say_so(parsed):
    found = {
        path: [urljoin(path, a["href"]) for a in page.select("a[href*='lite/lab/']")]
        for path, page in parsed.items()
    }
    assert {path: there for path, there in found.items() if there} == {
        path.relative_to(ROOT).with_suffix(".html").as_posix(): [
            f"lite/lab/index.html?path={path.name}"
        ]
        for path in light()
    }


def test_nothing_is_loaded_from_elsewhere(parsed):
    loaded = [
        tag.get("src") or tag.get("href")
        for page in parsed.values()
        for tag in page.select("script[src], img[src], link[rel=stylesheet]")
    ]
    assert [where for where in loaded if urlsplit(where).netloc] == []


def test_every_picture_says_in_words_what_it_shows(parsed):
    words = [
        (path, image.get("alt", ""))
        for path, page in parsed.items()
        for image in page.select("img")
    ]
    assert len(words) > 50
    assert [w for w in words if len(w[1].split()) < 3 or "_images" in w[1]] == []


def test_the_glossary_has_each_term_once_and_the_notebook_has_it_too():
    text = (ROOT / "notebooks" / "glossary.md").read_text("utf-8")
    entry = r"- \*\*(.+?)\*\*: ([A-Z0-9].+\.) \(\[(\d\d)\]\((.+?)\)\)"
    lines = [line for line in text.splitlines() if line.startswith("- ")]
    entries = [re.fullmatch(entry, line) for line in lines]
    assert all(entries) and len(entries) > 40
    terms = [found[1].lower() for found in entries]
    assert terms == sorted(set(terms))
    for found in entries:
        (path,) = find(ROOT, [found[3]])
        assert path.name == found[4]
        said = " ".join(c.source for c in read(path).cells).lower()
        said = re.sub(r"[*\s]+", " ", said)
        assert found[1].lower() in said, f"{name(path)} never says {found[1]}"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious(browser, address, theme):
    page = browser.new_page(color_scheme=theme)
    found = []
    for where in PAGES:
        page.goto(address + where, wait_until="networkidle")
        assert page.evaluate("document.documentElement.dataset.theme") == theme
        result = Axe().run(page).response
        assert len(result["passes"]) > 10
        found += [
            (where, finding["id"], finding["nodes"][0]["html"])
            for finding in result["violations"]
            if finding["impact"] in ("serious", "critical")
            and finding["id"] not in OF_THE_THEME
        ]
    page.close()
    assert found == []


def test_a_small_screen_has_all_within_its_width(browser, address, parsed):
    page = browser.new_page(viewport={"width": 400, "height": 800})
    wide = []
    for where in parsed:
        if "/api/" not in where:
            page.goto(address + where)
            width = page.evaluate("document.documentElement.scrollWidth")
            wide += [(where, width)] if width > 400 else []
    page.close()
    assert wide == [], wide


def test_players_move_and_questions_answer_without_a_kernel(browser, address):
    page = browser.new_page()
    page.goto(f"{address}notebooks/02_the_graph_of_clients.html")
    player = page.locator("figure.player").first
    output, colour = player.locator("output"), "e => getComputedStyle(e).fill"
    client = player.locator("#clients use").first
    before = output.inner_text(), client.evaluate(colour)
    player.get_by_role("button", name="play").click()
    player.get_by_text("round 3", exact=True).wait_for()
    player.get_by_role("button", name="pause").click()
    assert output.inner_text() != before[0] and client.evaluate(colour) != before[1]
    asked = page.locator("details", has=page.locator("summary", has_text="?")).last
    closed = asked.bounding_box()["height"]
    asked.locator("summary").click()
    assert asked.bounding_box()["height"] > closed
    page.close()


def test_one_can_search(browser, address):
    page = browser.new_page()
    page.goto(f"{address}search.html?q=spectral+gap")
    result = page.locator("#search-results li a", has_text="02 - Which graph").first
    result.wait_for()
    result.click()
    page.wait_for_url("**/02_the_graph_of_clients.html*")
    page.close()
