"""The report as a page: what is in the file, and what it does in a real browser."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from relex_merge.report import save_html
from relex_merge.report.columns import COLUMNS, SIZE
from relex_merge.report.html import render_html
from relex_merge.trajectory.statistics import SeriesStatistics
from tests.support.evaluations import make_evaluation, sums
from tests.support.report_cases import make, report_of

pytest.importorskip("matplotlib")

STEPS = np.arange(1.0, 31)
FOLDER = "/home/jane/runs"


class Page(HTMLParser):
    """Collects what a page refers to and whether its elements are closed in order."""

    VOID = frozenset({"meta", "br", "img", "link", "input", "hr"})

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        self.elements.append((tag, {key: value or "" for key, value in attrs}))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def named(self, tag: str) -> list[dict[str, str]]:
        """The attributes of all elements of one kind."""
        return [attributes for name, attributes in self.elements if name == tag]


def read(text: str) -> Page:
    page = Page()
    page.feed(text)
    page.close()
    assert page.open == []
    return page


@pytest.fixture(scope="module")
def statistics() -> SeriesStatistics:
    return make(STEPS).statistics()


@pytest.fixture(scope="module")
def report(statistics: SeriesStatistics) -> Any:
    """A report of local folders."""
    found = report_of(statistics, 120.0)
    found["base"] = {"reference": f"{FOLDER}/base", "sha": None}
    found["verdict"]["reasons"].append(f"The weights of {FOLDER}/step_3 are odd.")
    found["evaluation"] = make_evaluation(tasks=sums())
    found["verdict"]["evidence"] = "labels"
    found["verdict"]["statements"] = [
        {
            "evidence": "labels",
            "verdict": None,
            "says": [found["verdict"]["reasons"][0]],
            "cannot_see": "Other tasks.",
        }
    ]
    return found


@pytest.fixture(scope="module")
def path(
    report: Any, statistics: SeriesStatistics, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    file = tmp_path_factory.mktemp("page") / "report.html"
    save_html(report, statistics, file)
    return file


def test_it_is_well_formed_and_asks_for_nothing(path: Path, report: Any) -> None:
    text = path.read_text(encoding="utf-8")
    page = read(text)
    references = [a[key] for _, a in page.elements for key in ("src", "href", "data") if key in a]
    assert all(reference.startswith(("#", "data:")) for reference in references)
    assert not re.search(r"(https?:)?//[a-z]|@import|url\((?!#)", text.replace("// ", ""))
    ids = Counter(a["id"] for _, a in page.elements if "id" in a)
    assert set(ids.values()) == {1}
    for name in report["tensors"]:
        assert f'data-value="{name}"' in text
    assert f'class="verdict good">\n<h2>Verdict: <strong>{report["verdict"]["verdict"]}' in text
    assert "prefers-color-scheme: dark" in text
    assert "exact_match" in text  # of the evaluation
    reason = report["verdict"]["reasons"][0]
    assert f"<h3>labels: cannot tell</h3>\n<ul><li>{reason}</li><li>Other tasks.</li></ul>" in text
    assert text.count(f"<li>{reason}</li>") == 1


def test_it_names_no_folder_of_this_machine(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert "jane" not in text
    assert "The weights of step_3 are odd." in text


def test_text_in_figures_is_text_and_every_figure_is_described(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    page = read(text)
    ids = {a["id"] for _, a in page.elements if "id" in a}
    figures = page.named("svg")
    assert len(figures) == 3
    for figure in figures:
        assert figure["role"] == "img"
        assert set(figure["aria-labelledby"].split()) <= ids
    words = re.findall(r"<text[^>]*>([^<]*)</text>", text)
    assert {"extrapolation ratio", "step", "rank-1 quadratic", "random walk"} <= set(words)


def test_names_of_columns_and_values_are_under_the_mouse(path: Path, report: Any) -> None:
    text = path.read_text(encoding="utf-8")
    for column in (*COLUMNS, SIZE):
        assert f'<th scope="col" title="{column.meaning}"><button type="button">' in text
    entry = report["tensors"]["model.layers.1.mlp.down_proj.weight"]
    assert f'title="EV {entry["explained_variance"]!r}"' in text
    assert f'title="layer 1, down_proj: {entry["explained_variance"]:.3f}"' in text
    for trial in report["backtests"]["grid"]:
        said = f"extrapolation ratio {trial['ratio']:.4g}, {trial['skill']['two_point']:.3g}"
        assert f"<title>two-point line: {said}</title>" in text
    assert len(re.findall(r"<title>observed: step [\d.]+, ", text)) == 30


def test_names_are_escaped(statistics: SeriesStatistics) -> None:
    odd = SeriesStatistics(STEPS, {"<script>": next(iter(statistics.tensors.values()))})
    text = render_html(report_of(odd, 120.0), odd)
    assert "&lt;script&gt;" in text
    assert text.count("<script>") == 1


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, playwright's or the system's own."""
    playwright = pytest.importorskip("playwright.sync_api")
    names = ("chromium", "chromium-browser", "google-chrome")
    system = next(filter(None, map(shutil.which, names)), None)
    with playwright.sync_playwright() as started:
        try:
            found = started.chromium.launch(executable_path=system, args=["--no-sandbox"])
        except playwright.Error as error:
            pytest.skip(f"no browser: {str(error).splitlines()[0]}")
        yield found
        found.close()


def values(page: Any, column: int) -> list[str]:
    """data-value of one column, in the rows' order, of those that are shown."""
    script = """column => [...document.querySelectorAll("#tensors tbody tr")]
        .filter(row => row.offsetParent !== null)
        .map(row => row.cells[column].dataset.value)"""
    found: list[str] = page.evaluate(script, column)
    return found


def test_a_browser_sorts_and_filters(browser: Any, path: Path, report: Any) -> None:
    page = browser.new_page(viewport={"width": 420, "height": 700}, color_scheme="dark")
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: wrong.append(request.url))
    page.goto(path.as_uri())
    assert wrong == [path.as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") == 420
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 27)"
    skill = next(i for i, c in enumerate(COLUMNS, 1) if c.key == "backtest_skill")
    header, button = page.locator("#tensors th").nth(skill), page.locator("#tensors button")
    expected = sorted(t["backtest_skill"] for t in report["tensors"].values())
    for direction, order, arrow in (("descending", -1, "↓"), ("ascending", 1, "↑")):
        button.nth(skill).click()
        assert header.get_attribute("aria-sort") == direction
        assert [float(value) for value in values(page, skill)] == expected[::order]
        after = "button => getComputedStyle(button, '::after').content"
        assert button.nth(skill).evaluate(after) == f'"{arrow}"'
    button.nth(0).click()
    assert header.get_attribute("aria-sort") is None
    assert values(page, 0) == sorted(report["tensors"], reverse=True)
    page.get_by_label("Filter").fill("LAYERS q_proj")
    assert values(page, 0) == [f"model.layers.{i}.self_attn.q_proj.weight" for i in (2, 1, 0)]
    assert page.locator("#count").inner_text() == "3 of 11 tensors"
    page.get_by_label("Filter").fill("")
    top = """() => { const box = document.querySelector(".tall"); box.style.maxHeight = "9rem";
        box.scrollTop = 90; return [box.scrollTop, box.getBoundingClientRect().top
        - document.querySelector("#tensors th").getBoundingClientRect().top] }"""
    scrolled, moved = page.evaluate(top)
    assert scrolled > 50
    assert abs(moved) < 2  # the header stays
    page.close()
