"""The report's pages in a browser: whole and legible on a phone and a desktop, by keyboard, asking for nothing else."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from loralab.studies.committed import questions
from loralab.studies.report_page import page, runs_page
from loralab.studies.report_runs import runs_of
from loralab.studies.report_section import Section, section
from loralab.studies.study_module import load_module
from tests.browsers import CONTRAST, OVERFLOW, launched
from tests.reported import MARKUP, Parsed, finished, reported
from tests.small_studies import NAME

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

WIDTHS = (390, 1280)
IMAGES = """async () => Promise.all([...document.images].map(async image => {
  image.loading = 'eager';  // one that waits for scrolling is never decoded
  await image.decode();
  return image.naturalWidth;
}))"""
HEADINGS = "() => [...document.querySelectorAll('h1, h2, h3, h4')].map(h => +h.tagName[1])"
UNNAMED = """() => {
  const named = e => e.getAttribute('aria-label') || e.textContent.trim() || (e.labels && e.labels.length);
  const ids = [...document.querySelectorAll('[id]')].map(e => e.id);
  return [
    ...[...document.querySelectorAll('a, button, input, nav, [role=group]')].filter(e => !named(e)),
    ...[...document.querySelectorAll('[aria-controls], [aria-labelledby]')].filter(e =>
      !document.getElementById(e.getAttribute('aria-controls') || e.getAttribute('aria-labelledby'))),
    ...[...document.querySelectorAll('.scroll')].filter(e => e.tabIndex !== 0 || e.getAttribute('role') !== 'group'),
    ...[...document.querySelectorAll('img')].filter(e => !e.alt),
    ...[...document.querySelectorAll('nav a[href^="#"]')].filter(e => !document.getElementById(e.hash.slice(1))),
  ].map(e => e.outerHTML).concat(ids.filter((id, at) => ids.indexOf(id) !== at));
}"""
CUT = "() => [...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth).map(e => e.outerHTML)"
OPEN = "() => document.querySelectorAll('details').forEach(each => each.open = true)"
SHOWN = "() => [...document.querySelectorAll('section.study:not([hidden])')].map(e => e.dataset.study)"


@pytest.fixture(scope="module")
def sections(tmp_path_factory: pytest.TempPathFactory) -> list[Section]:
    """One study, another of the topic λ, and a third that asks nothing."""
    frame = finished()
    with pytest.MonkeyPatch.context() as patch:
        reported(tmp_path_factory.mktemp("page"), patch)
        header = dict.fromkeys(("claim", "metric", "command", "cost"), "text")
        own = section(NAME, frame, load_module(NAME), questions=questions(NAME), csv="a,b", header=header)
        train = dict.fromkeys(frame["hash"], f"python train.py sweeps={NAME} seed={MARKUP}")
        own = replace(own, runs=runs_of(frame, train, {frame["hash"][0]: "outputs/runs/x"}))
        return [own, replace(own, name="ratio", stem="ratio"), replace(own, name="rank", stem="rank", questions=())]


@pytest.fixture(scope="module")
def written(sections: list[Section], tmp_path_factory: pytest.TempPathFactory) -> Path:
    to = tmp_path_factory.mktemp("three") / "report.html"
    files = to.with_name("report_files")
    files.mkdir()
    for each in sections:
        (files / f"{each.stem}.svg").write_text(each.picture.svg)
        (files / f"{each.stem}.csv").write_text(each.csv)
        (files / f"{each.stem}.html").write_text(runs_page(each, f"../report.html#{each.stem}"), encoding="utf-8")
    to.write_text(page(sections), encoding="utf-8")
    to.with_name("report_of_one.html").write_text(page(sections[:1]), encoding="utf-8")
    return to


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    yield from launched()


def opened(browser: "Browser", address: str, width: int, scheme: Any = "light") -> tuple["Page", list[str]]:
    """The page at this width, its requests beyond its own folder, and its messages and errors."""
    tab = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    trouble: list[str] = []
    folder = address.partition("report")[0]
    tab.on("console", lambda message: trouble.append(message.text))
    tab.on("pageerror", lambda error: trouble.append(str(error)))
    tab.on("request", lambda sent: None if sent.url.startswith(("data:", folder)) else trouble.append(sent.url))
    tab.goto(address, wait_until="load")
    return tab, trouble


def test_text_is_shown_and_never_read_as_html(sections: list[Section]) -> None:
    for parsed in (Parsed(page(sections)), Parsed(runs_page(sections[0], "report.html"))):
        assert len(parsed.all("script")) == 1 and MARKUP in parsed.text
    assert f"stage grid note {MARKUP}" not in parsed.text and f"seed={MARKUP}" in parsed.text


def test_the_page_is_light_and_figures_but_the_first_wait_until_they_are_scrolled_to(sections: list[Section]) -> None:
    html = page(sections)
    assert len(html) < 120_000 and "data:image" not in html
    assert [image.get("loading") for image in Parsed(html).all("img")] == [None, "lazy", "lazy"]
    assert all(image["width"] and image["height"] for image in Parsed(html).all("img"))


def test_the_first_study_comes_before_all_questions_and_the_others_under_their_topics(sections: list[Section]) -> None:
    html = page(sections)
    order = [f'id="{NAME}"', 'id="all"', 'id="ratio--topic"', 'id="ratio"', 'id="rank--topic"', 'id="rank"', "<footer"]
    places = [html.index(each) for each in order]
    assert places == sorted(places)
    assert "λ, the ratio of the learning rates</h2>" in html[places[2] : places[3]]
    alone = Parsed(page(sections[:1]))
    assert "All questions" not in alone.text and not alone.all("nav")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_a_browser_shows_it_whole_and_legible(browser: "Browser", written: Path, width: int, scheme: str) -> None:
    """The page, that of a single study, and the runs."""
    for name, least in (("report.html", 200), ("report_of_one.html", 60), (f"report_files/{NAME}.html", 80)):
        address = f"{written.parent.as_uri()}/{name}"
        tab, trouble = opened(browser, address, width, scheme)
        tab.evaluate(OPEN)
        assert tab.evaluate(OVERFLOW) <= 0
        assert min(tab.evaluate(IMAGES) or [601]) > 600
        contrast = tab.evaluate(CONTRAST)
        assert len(contrast) > least and min(contrast)[0] >= 4.5, min(contrast)
        levels = tab.evaluate(HEADINGS)
        assert levels[0] == 1 and all(below - above <= 1 for above, below in pairwise(levels))
        assert tab.evaluate(UNNAMED) == []
        assert tab.locator("main").count() == tab.locator("h1").count() == 1
        assert trouble == []
        tab.close()


def test_no_column_is_cut_at_1280_pixels(browser: "Browser", written: Path) -> None:
    tab, _ = opened(browser, written.as_uri(), 1280)
    tab.evaluate(OPEN)
    assert len(tab.query_selector_all(".numbers")) == 3 and tab.evaluate(CUT) == []
    tab.close()


def test_the_search_keeps_what_has_all_its_words_and_enter_goes_to_the_first(browser: "Browser", written: Path) -> None:
    tab, trouble = opened(browser, written.as_uri(), 1280)
    tab.keyboard.press("Tab")
    assert tab.evaluate("() => document.activeElement.textContent") == "Skip to the results"
    tab.keyboard.press("Tab")
    tab.keyboard.type("RATIO  learning")
    assert tab.evaluate(SHOWN) == ["ratio"] and tab.get_by_role("status").inner_text() == "1 of 3 studies"
    assert tab.locator("nav li[data-of]:visible").all_inner_texts() == ["ratio"]
    assert tab.locator(".all tr[data-of]:visible").count() == 2 and not tab.locator("#rank--topic").is_visible()
    tab.keyboard.press("Enter")
    assert tab.evaluate("() => document.activeElement.id") == "ratio"
    tab.get_by_label("Search studies").fill("nowhere")
    assert tab.evaluate(SHOWN) == [] and tab.get_by_role("status").inner_text() == "0 of 3 studies"
    tab.get_by_label("Search studies").press("Escape")
    assert len(tab.evaluate(SHOWN)) == 3 and tab.locator("#rank--topic").is_visible() and trouble == []
    tab.close()


def test_a_cell_leads_to_its_runs_and_a_run_opens_by_the_keyboard(browser: "Browser", written: Path) -> None:
    tab, trouble = opened(browser, written.as_uri(), 1280)
    tab.evaluate(OPEN)
    tab.get_by_label("2 runs of row 3", exact=True).first.click()
    tab.wait_for_selector("tr.run:not([hidden])")
    assert tab.locator("tr.run:visible").count() == 2
    assert tab.get_by_role("status").inner_text() == "2 of 12 runs: stage = confirm, lora.ratio = 1"
    button = tab.get_by_role("button", name="0000000008")
    button.focus()
    tab.keyboard.press("Enter")
    assert button.get_attribute("aria-expanded") == "true"
    assert f"sweeps={NAME} seed={MARKUP}" in tab.locator("#of-0000000008").inner_text()
    tab.get_by_label("Search runs").fill("101")
    assert tab.locator("tr.run:visible").count() == 1 and not tab.locator("#of-0000000008").is_visible()
    tab.get_by_label("Search runs").fill("")
    tab.get_by_text("Show all").click()
    assert tab.locator("tr.run:visible").count() == 12 and tab.locator("tr.more:visible").count() == 1
    tab.get_by_text("Back to the report").click()
    tab.wait_for_selector("section.study")
    assert tab.url == f"{written.as_uri()}#{NAME}" and trouble == []
    tab.close()


def test_the_page_asks_for_nothing_even_where_its_text_would(browser: "Browser", written: Path) -> None:
    """The page's content security policy blocks injected content, and the checks above detect it."""
    bad = '<img src="https://example.com/x.png"><div style="color: #888; width: 3000px">faint</div>'
    bad += "<script>alert(1)</script>"
    changed = written.with_name("report_bad.html")
    changed.write_text(written.read_text(encoding="utf-8").replace("<footer", f"{bad}<footer"))
    tab, trouble = opened(browser, changed.as_uri(), WIDTHS[1])
    assert tab.evaluate(OVERFLOW) > 0 and tab.evaluate(UNNAMED) != []
    assert min(tab.evaluate(CONTRAST))[0] < 4.5
    assert sum("Content Security Policy" in text for text in trouble) == 2
    tab.close()


def test_on_paper_nothing_is_cut_off_closed_or_dark(browser: "Browser", written: Path) -> None:
    tab, _ = opened(browser, written.as_uri(), 680, "dark")
    tab.emulate_media(media="print", color_scheme="dark")
    tab.evaluate("() => dispatchEvent(new Event('beforeprint'))")
    assert tab.evaluate("() => getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert tab.evaluate("() => document.querySelector('nav').checkVisibility()") is False
    for name in (".claims", "img", ".numbers"):
        box = tab.locator(name).first.bounding_box()
        assert box is not None and 0 < box["width"] <= 680
    tab.close()
