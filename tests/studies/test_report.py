"""The report is one self-contained file, the same each time, and agrees with the CSV and the claims table."""

import base64
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

from loralab.errors import UserError
from loralab.studies import results
from loralab.studies.committed import questions
from loralab.studies.questions import value_text
from loralab.studies.report import _provenance, _table, page, report, section
from loralab.studies.study_module import load_module
from tests.small_studies import FIRST, NAME, checkout

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

MARKUP = "<b>bold</b> & <script>alert(1)</script>"
ANALYSIS = f"""
import pandas as pd
from loralab import plotting
from loralab.studies.questions import Claim, Question
from loralab.studies.stats import Interval


def draw(frame):
    import matplotlib.pyplot as plt
    figure, axes = plt.subplots(1, 2, figsize=(plotting.DOUBLE, 2.2))
    for ax, (stage, rows) in zip(axes, frame.groupby("stage")):
        ax.plot(rows["optim.lr"], rows["validation/loss"], "o")
        ax.set(title=stage, xlabel="lr$_A$", ylabel="validation loss {MARKUP}")
    return figure


def caption(frame):
    return "Validation loss {MARKUP} against lr_A; " + str(len(frame)) + " runs."


def summary(frame):
    wide = {{f"score {{i}}": frame["validation/loss"] + i for i in range(12)}}
    return pd.DataFrame({{"stage {MARKUP}": frame["stage"], **wide, "good": True}})


def questions(frame):
    def claim(text, estimate, half):
        return Claim(text, Interval(estimate, estimate - half, estimate + half, 5, 0.5), "1 to 2%", 0.01)
    four = [claim("up {MARKUP}", 0.02, 0.001), claim("down", -0.02, 0.001), claim("alone it would hold", 0.02, 0.015),
            claim("perhaps {"x" * 60}", 0.02, 0.5)]
    return [Question("is it up?", "LoRA+, Fig 7 {MARKUP}", "points", four),
            Question("is it the same?", "in no paper", "points", [claim("even", 0.0, 0.001)])]
"""
ROWS = [("grid", *row) for row in FIRST] + [
    ("confirm", seed, ratio, rate) for seed in (100, 101) for ratio, rate in ((1, 0.001), (16, 0.0005))
]


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    """The finished study of two stages; the lower rate of each arm is the better one."""
    runs = pd.DataFrame(ROWS, columns=["stage", "seed", "lora.ratio", "optim.lr"])
    count = range(len(runs))
    runs["status"] = "success"
    runs["validation/loss"] = runs["optim.lr"] + 0.5
    runs["diff"] = [f"{MARKUP}{at}" if at < 3 else None for at in count]
    return runs.assign(hash=[f"{at:010x}" for at in count], commit="c" * 40, threads=1)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, frame: pd.DataFrame) -> Iterator[Path]:
    """A checkout with this study, its results and its analysis; the study's claim and the analysis contain markup."""
    with pytest.MonkeyPatch.context() as patch:
        folder = checkout(tmp_path_factory.mktemp("report") / "checkout", patch)
        sweep = folder / "sweeps" / f"{NAME}.yaml"
        claim = "A ratio of 16 reaches a lower loss."
        sweep.write_text(sweep.read_text().replace(claim, f"'{MARKUP} {claim}'\n      margin: 0.5 points"))
        (folder / "analysis").mkdir()
        (folder / "analysis" / f"{NAME}.py").write_text(ANALYSIS)
        results.save(frame, folder / "analysis" / "results" / f"{NAME}.csv")
        yield folder


@pytest.fixture(scope="module")
def html(root: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    to = tmp_path_factory.mktemp("html") / "sub" / "report.html"
    report([NAME, NAME], to)
    return to.read_text(encoding="utf-8")


class Parsed(HTMLParser):
    """The tags of a page with their attributes, and its text outside of style."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(html.replace("<wbr>", ""))
        self.text = " ".join(" ".join(self.texts).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts += [data] if self.tags and self.tags[-1][0] != "style" else []

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def parsed(html: str) -> Parsed:
    return Parsed(html)


def test_a_report_tells_the_claim_the_figure_the_table_the_origin_and_the_command(parsed: Parsed) -> None:
    assert f"{MARKUP} A ratio of 16 reaches a lower loss." in parsed.text
    assert f"Figure 1. Validation loss {MARKUP} against lr_A; 12 runs." in parsed.text
    for fact in (f"python train.py sweeps={NAME}", f"loralab study {NAME}", "12 runs, seconds", "validation/loss"):
        assert fact in parsed.text
    assert "Runs 12 Status success Code 9 commit cccccccccc" in parsed.text
    assert "Threads a run 1" in parsed.text
    assert len(parsed.all("section")) == 1  # a study that is named twice appears once
    assert parsed.all("html")[0]["lang"] == "en"
    assert all(cell["scope"] in ("row", "col") for cell in parsed.all("th"))
    assert len(parsed.all("caption")) == len(parsed.all("table")) == 3


def test_verdicts_are_those_of_the_questions(root: Path, parsed: Parsed) -> None:
    badges = [attributes["class"] for attributes in parsed.all("span") if "badge" in (attributes["class"] or "")]
    assert badges == ["badge held", "badge fell", "badge open", "badge open", "badge even"]
    asked = questions(NAME)
    for question in asked:
        assert f"{question.text} {question.source}" in parsed.text
        for claim, verdict in zip(question.claims, question.verdicts, strict=True):
            ours = value_text(claim.found, "points").replace("\xa0", " ")
            assert f"{verdict} {claim.arm} {claim.paper}; tested: ≥ 1 points {ours}" in parsed.text
    assert [len(question.claims) for question in asked] == [4, 1]
    assert "1 held · 1 contradicted in size · 1 equivalent · 2 not identified" in parsed.text


def test_text_is_shown_and_never_read_as_html(html: str, parsed: Parsed) -> None:
    assert not parsed.all("script") and len(parsed.all("b")) == 4  # two questions, and the numbers: Figure 1, Table 1
    assert f"stage {MARKUP}" in parsed.text and f"with diff {MARKUP}0" in parsed.text
    assert f"LoRA+, Fig 7 {MARKUP}" in parsed.text
    (image,) = parsed.all("img")
    assert image["alt"] == (
        f"Figure of {NAME}. validation loss {MARKUP} against lr_A. panels: confirm; grid. "
        "The numbers are in the table below."
    )


def test_the_page_holds_all_that_it_needs(html: str, parsed: Parsed) -> None:
    """No script, and no address except for data and anchors in the page."""
    addresses = [attributes[name] for _, attributes in parsed.tags for name in ("src", "href") if name in attributes]
    assert len(addresses) == 1 + 5 + 1 + 1  # icon, navigation, figure, CSV
    assert all(re.match(r"data:|#", address or "") for address in addresses)
    assert "url(" not in html and "@import" not in html


def test_the_results_are_in_the_page_byte_for_byte(root: Path, parsed: Parsed) -> None:
    (link,) = [each for each in parsed.all("a") if "download" in each]
    content = base64.b64decode((link["href"] or "").split("base64,")[1])
    assert content == (root / "analysis" / "results" / f"{NAME}.csv").read_bytes()
    assert link["download"] == f"{NAME}.csv"


def test_the_same_results_give_the_same_file(root: Path, html: str, tmp_path: Path) -> None:
    report(["all"], tmp_path / "again.html")
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == html


def test_a_run_counts_once_however_many_rows_it_has(frame: pd.DataFrame) -> None:
    twice = pd.concat([frame, frame]).assign(status=["diverged", *["success"] * 11] * 2)
    found = _provenance(twice, "text")
    assert found["Runs"] == ("12",) and found["Status"] == ("11 success", "1 diverged")
    assert found["Results"][0].startswith("24 rows, SHA-256 982d9e3eb996f559")
    assert _provenance(frame.drop(columns=["hash", "status", "commit", "diff", "threads"]), "")["Rows"] == ("12",)


def test_a_table_aligns_decimals_and_marks_what_is_missing() -> None:
    index = pd.Index(["x", "y"], name="task")
    found = _table(
        pd.DataFrame(
            {
                "score": [0.5, 0.8125],
                "rate": [5e-5, 0.01],
                "n": [1, 20],
                "gone": [float("nan"), 2.0],
                "interval": ["[-0.1, 0.2]", None],
                "interior": [True, False],
            },
            index=index,
        )
    )
    assert found.columns == ("task", "score", "rate", "n", "gone", "interval", "interior")
    assert found.rows == (
        ("x", "0.5000", "5e-05", "1", "—", "[-0.1, 0.2]", "yes"),
        ("y", "0.8125", "0.01", "20", "2", "—", "no"),
    )
    assert found.numeric == (False, True, True, True, True, True, False)


def test_a_mistake_is_told_and_nothing_is_written(root: Path, frame: pd.DataFrame, tmp_path: Path) -> None:
    to = tmp_path / "report.html"
    with pytest.raises(UserError, match=r"is a directory; name a file"):
        report([NAME], tmp_path)
    with pytest.raises(UserError, match=r"nothing"):
        report([NAME, "nothing"], to)
    csv = root / "analysis" / "results" / f"{NAME}.csv"
    whole = csv.read_bytes()
    try:
        results.save(frame.drop(index=3), csv)
        with pytest.raises(UserError, match=r"no row for .*lora.ratio=16"):
            report([NAME], to)
        csv.unlink()
        with pytest.raises(UserError, match=r"no study has results"):
            report(["all"], to)
    finally:
        csv.write_bytes(whole)
    assert not to.exists()


def test_what_a_sweep_does_not_say_of_itself_follows_from_its_grid_or_is_left_out(root: Path, tmp_path: Path) -> None:
    sweep, to = root / "sweeps" / f"{NAME}.yaml", tmp_path / "report.html"
    text = sweep.read_text()
    try:
        bare = "    study:\n      margin: 0.5 points\n"
        sweep.write_text(re.sub(r"    study:\n(      .*\n)+(?=    params)", bare, text))
        assert report([NAME], to) == {}
    finally:
        sweep.write_text(text)
    found = Parsed(to.read_text(encoding="utf-8"))
    assert f"Primary metric validation/loss Trained by loralab study {NAME} Cost 8 runs" in found.text
    assert not [attributes for attributes in found.all("p") if attributes.get("class") == "claim"]


# In a browser

WIDTHS = (390, 1440)
CONTRAST = """() => {
  const linear = v => (v /= 255, v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
  const light = c => .2126 * linear(c[0]) + .7152 * linear(c[1]) + .0722 * linear(c[2]);
  const parts = text => { const c = text.match(/[\\d.]+/g).map(Number); return c.length < 4 ? [...c, 1] : c; };
  const behind = element => {
    for (; element; element = element.parentElement) {
      const c = parts(getComputedStyle(element).backgroundColor);
      if (c[3] === 1) return c;
      if (c[3] > 0) throw new Error('half transparent: ' + element.tagName);
    }
    return matchMedia('(prefers-color-scheme: dark)').matches ? [0, 0, 0, 1] : [255, 255, 255, 1];
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.checkVisibility()) continue;
    const [a, b] = [light(parts(getComputedStyle(element).color)), light(behind(element))];
    found.push([(Math.max(a, b) + .05) / (Math.min(a, b) + .05), walker.currentNode.data.trim()]);
  }
  return found;
}"""
OVERFLOW = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
IMAGES = "async () => Promise.all([...document.images].map(async i => (await i.decode(), i.naturalWidth)))"
ANCHORS = "() => [...document.querySelectorAll('nav a')].map(a => [a.hash, !!document.querySelector(a.hash)])"


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install '.[dev]'")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no browser: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def written(root: Path, frame: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of two studies, the second without claims."""
    header = dict.fromkeys(("claim", "metric", "command", "cost"), "text")
    first = section(NAME, frame, load_module(NAME), questions=questions(NAME), csv="a,b", header=header)
    to = tmp_path_factory.mktemp("two") / "report.html"
    to.write_text(page([first, replace(first, name="second", questions=())]), encoding="utf-8")
    return to


def opened(browser: "Browser", path: Path, width: int, scheme: Any = "light") -> tuple["Page", list[str]]:
    """The page at this width, its requests to other addresses, and its errors."""
    tab = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    trouble: list[str] = []
    tab.on("console", lambda message: trouble.append(message.text))
    tab.on("pageerror", lambda error: trouble.append(str(error)))
    tab.on("request", lambda request: trouble.append(request.url) if not request.url.startswith("data:") else None)
    tab.goto(path.as_uri(), wait_until="load")
    assert trouble[0] == path.as_uri()
    return tab, trouble[1:]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_a_browser_shows_it_whole_and_legible(browser: "Browser", written: Path, width: int, scheme: str) -> None:
    tab, trouble = opened(browser, written, width, scheme)
    assert tab.evaluate(OVERFLOW) <= 0
    widths = tab.evaluate(IMAGES)
    assert len(widths) == 2 and min(widths) > 600
    anchors = tab.evaluate(ANCHORS)
    assert len(anchors) == 10 and all(there for _, there in anchors)
    contrast = tab.evaluate(CONTRAST)
    assert len(contrast) > 100 and min(contrast)[0] >= 4.5, min(contrast)
    assert trouble == []
    tab.close()


def test_the_page_asks_for_nothing_even_where_its_text_would(browser: "Browser", written: Path, tmp_path: Path) -> None:
    """The page's content security policy blocks injected content, and the checks above detect it."""
    bad = '<img src="https://example.com/x.png"><p style="color: #888; width: 3000px">faint</p>'
    (tmp_path / "bad.html").write_text(written.read_text(encoding="utf-8").replace("<footer", f"{bad}<footer"))
    tab, trouble = opened(browser, tmp_path / "bad.html", WIDTHS[1])
    assert tab.evaluate(OVERFLOW) > 0
    assert min(tab.evaluate(CONTRAST))[0] < 4.5
    assert any("Content Security Policy" in text for text in trouble)
    tab.close()


def test_on_paper_nothing_is_cut_off_or_dark(browser: "Browser", written: Path) -> None:
    tab, _ = opened(browser, written, 680, "dark")
    tab.emulate_media(media="print", color_scheme="dark")
    assert tab.evaluate("() => getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert tab.evaluate("() => document.querySelector('nav').checkVisibility()") is False
    claims, figure = (tab.locator(name).first.bounding_box() for name in (".claims", "img"))
    assert claims is not None and figure is not None
    assert claims["width"] <= 680 and figure["width"] <= 680
    tab.close()


def test_the_csv_downloads(browser: "Browser", written: Path, tmp_path: Path) -> None:
    tab, _ = opened(browser, written, WIDTHS[1])
    with tab.expect_download() as download:
        tab.get_by_text(f"Download {NAME}.csv").click()
    download.value.save_as(tmp_path / "x.csv")
    assert download.value.suggested_filename == f"{NAME}.csv"
    assert (tmp_path / "x.csv").read_text() == "a,b"
    tab.close()
