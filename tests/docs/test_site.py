"""The documentation site: it builds without a warning, holds what it should, and loads nothing from elsewhere."""

import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlsplit

import pytest

pytestmark = pytest.mark.shown

ROOT = Path(__file__).resolve().parents[2]
LOADS = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}
BROKEN = {
    "a link to nowhere": ("See [more](nowhere.md).", "nowhere.md"),
    "an anchor that is not there": ("See [more](operator.md#nowhere).", "#nowhere"),
    "a name that is not in the code": ("::: fedbiomed.researcher.experiment.Nothing", "Nothing"),
}


def build(root: Path, out: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)]
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, timeout=100, check=False)


class Loads(HTMLParser):
    """What a page makes a browser load."""

    def __init__(self):
        super().__init__()
        self.urls = []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        if tag in LOADS and values.get("rel") != "canonical":
            self.urls.append(values.get(LOADS[tag]) or "")


def loads(page):
    parser = Loads()
    parser.feed(page.read_text(encoding="utf-8"))
    return parser.urls


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp("docs") / "site"
    done = build(ROOT, out)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def text(page):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", page.read_text(encoding="utf-8")))


def test_every_page_is_there(site):
    pages = {str(path.relative_to(site)) for path in site.rglob("*.html")}
    wanted = {
        f"{name}.html"
        for name in ["index", "getting-started", "researcher", "monitoring", "operator", "network", "security", "architecture", "changelog"]
    }
    notebooks = {f"tutorials/{path.stem}.html" for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert wanted | notebooks | {"reference/experiment.html", "contributing.html"} <= pages


def test_a_tutorial_holds_the_texts_and_the_code_of_its_notebook(site):
    for notebook in (ROOT / "notebooks").glob("*.ipynb"):
        page = (site / "tutorials" / f"{notebook.stem}.html").read_text(encoding="utf-8")
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        assert page.count('<div class="language-python highlight">') == sum(
            cell["cell_type"] == "code" and bool(cell["source"]) for cell in cells
        )
        assert notebook.name in page


def test_the_reference_comes_from_the_docstrings(site):
    experiment = text(site / "reference" / "experiment.html")
    assert "A series of rounds on one training plan over the datasets of several nodes." in experiment
    assert "set_tensorboard" in experiment, "what is inherited too"
    assert "_take_over" not in experiment


def test_nothing_is_loaded_from_elsewhere(site):
    for page in site.rglob("*.html"):
        outside = [url for url in loads(page) if urlsplit(url).scheme in ("http", "https") or url.startswith("//")]
        assert outside == [], page
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import\s+)['\"]?(https?:)?//", sheet.read_text(encoding="utf-8")), sheet


def test_what_a_page_loads_is_there(site):
    for page in site.rglob("*.html"):
        if page.name == "404.html":
            continue
        for url in loads(page):
            if url and not url.startswith("data:"):
                assert (page.parent / urlsplit(url).path).exists(), (page, url)


def test_the_links_of_the_texts_at_the_head_of_the_tree_are_right():
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", (ROOT / name).read_text(encoding="utf-8")):
            assert urlsplit(target).scheme or (ROOT / target).exists(), (name, target)


@pytest.mark.parametrize("what", BROKEN)
def test_the_build_fails_on(what, tmp_path):
    line, named = BROKEN[what]
    (tmp_path / "docs").mkdir()
    for name in ("operator.md", "parts.svg"):
        shutil.copy(ROOT / "docs" / name, tmp_path / "docs")
    (tmp_path / "docs" / "index.md").write_text(f"# Home\n\n{line}\n", encoding="utf-8")
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    settings = settings[: settings.index("\nnav:\n")].replace("hooks:\n  - docs/hooks/generated_pages.py\n", "")
    (tmp_path / "mkdocs.yml").write_text(settings.replace("paths: [.]", f"paths: [{ROOT}]"), encoding="utf-8")
    done = build(tmp_path, tmp_path / "site")
    assert done.returncode != 0
    assert named in done.stdout + done.stderr
