"""The page in a browser, while a tiny sweep trains: rows change, no other machine is asked, and all is legible."""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from loralab.runs.plan import plan
from loralab.runs.run import run
from tests.browsers import CONTRAST, OVERFLOW, launched, noted
from tests.inspect.test_watch_server import served
from tests.live_sweeps import LiveSweep
from tests.small_runs import config

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SETTINGS = ({"lora.ratio": "1", "seed": "0"}, {"lora.ratio": "4", "seed": "1"}, {"lora.ratio": "16", "seed": "0"})
HOSTILE = "<img src=https://example.com/x.png onerror=alert(1)>"
CELLS = """() => [...document.querySelectorAll('#runs tr')].map(
  row => [...row.children].map(cell => cell.innerText.split('\\n')[0].trim()))"""
PATHS = """() => [...document.querySelectorAll('.chart')].map(
  chart => [chart.firstChild.innerText, chart.querySelectorAll('path').length])"""
SHORT = ("train.steps=4", "train.eval_every=2")
EVERY = 0.2  # seconds between two looks: enough for a person, and little work for the processor


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    yield from launched()


def opened(browser: "Browser", url: str) -> tuple["Page", list[str]]:
    """The page, and a list of its messages, its errors and the addresses that it asks."""
    tab = browser.new_page(viewport={"width": 1280, "height": 900})
    trouble = noted(tab)
    tab.goto(url)
    tab.wait_for_selector(".live")
    return tab, trouble


def unexpected(url: str, trouble: list[str]) -> list[str]:
    """Messages, errors, and requests to other machines."""
    return [text for text in trouble if not text.startswith((url, "data:"))]


def test_rows_and_curves_change_while_a_sweep_trains(browser: "Browser", tmp_path: Path) -> None:
    overrides = [[f"{key}={value}" for key, value in own.items()] for own in SETTINGS]
    names = [plan(config(tmp_path, *SHORT, *own)).directory.path.name for own in overrides]
    with served(tmp_path, every=EVERY) as server:
        tab, trouble = opened(browser, server.url)
        tab.wait_for_function("() => document.querySelector('#title').textContent === 'No sweep yet'")
        sweep = LiveSweep(tmp_path, SETTINGS, keys=names, command=f"train {HOSTILE}", title=HOSTILE)
        tab.wait_for_selector("#runs tr:nth-child(3)")
        assert [row[1:5] for row in tab.evaluate(CELLS)] == [
            ["waiting", "", "1", "0"], ["waiting", "", "4", "1"], ["waiting", "", "16", "0"],
        ]  # fmt: skip
        sweep.observer.began(0, sweep.jobs[2])
        tab.wait_for_selector("#runs tr:first-child .running")
        assert tab.evaluate(CELLS)[0][3] == "16", "the run at work comes first"
        sweep.observer.left(0)
        sweep.observer.began(0, sweep.jobs[0])
        run(config(tmp_path, *SHORT, *overrides[0]))
        sweep.observer.left(0)
        tab.wait_for_selector("#runs .done")
        tab.wait_for_function("() => document.querySelectorAll('.chart path').length === 3")
        assert tab.evaluate(PATHS) == [["train/loss", 1], ["validation/loss", 1], ["validation/accuracy", 1]]
        heads = [text.strip() for text in tab.locator("thead th").all_inner_texts()]
        assert heads == ["run", "state", "step", "ratio", "seed", "accuracy", "loss", "steps/s", "time"]
        assert tab.inner_text("#title") == HOSTILE and tab.locator("main img:visible").count() == 0
        sweep.folder.close()
        tab.wait_for_selector("#state.ended")
        assert tab.inner_text("#summary") == "1 of 3 done, 2 not begun; it has ended"
        assert unexpected(server.url, trouble) == []
        tab.close()


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store whose sweep has a run in every state."""
    store = tmp_path_factory.mktemp("rich")
    sweep = LiveSweep(store, [{"lora.ratio": str(2**i), "method": "lora" * (i % 2 + 1)} for i in range(12)])
    for number, status in enumerate(["success"] * 8 + ["diverged", "failed"]):
        sweep.begins(number)
        for step in range(1, 10):
            sweep.comes_to(number, step, loss=(number + 1) / step, accuracy=step / (number + 10))
        sweep.ends(number, status, error="RuntimeError: " + "no " * 40 if status == "failed" else None)
    sweep.begins(10)
    sweep.comes_to(10, 5)
    sweep.folder.now()
    return store


def test_columns_are_sorted_by_mouse_and_by_keyboard(browser: "Browser", rich: Path) -> None:
    with served(rich, every=EVERY) as server:
        tab, trouble = opened(browser, server.url)
        tab.wait_for_selector("#runs .running")
        tab.get_by_role("button", name="accuracy").click()
        column = [row[5] for row in tab.evaluate(CELLS)]
        assert column == sorted(column, key=lambda text: (not text, -float(text or 0))), "the best first, missing last"
        assert tab.locator("th[aria-sort=descending]").inner_text().strip() == "accuracy"
        assert tab.locator(".best").all_inner_texts() == ["0.9000\n, the best", "0.1111\n, the best"], "of those done"
        tab.get_by_role("button", name="ratio").focus()
        tab.keyboard.press("Enter")
        assert [row[3] for row in tab.evaluate(CELLS)] == [str(2**i) for i in range(12)]
        tab.keyboard.press("Enter")
        assert tab.evaluate(CELLS)[0][3] == "2048"
        tab.keyboard.press("Enter")
        assert tab.locator("th[aria-sort]").count() == 0
        first = tab.locator("tbody button").first
        pressed = first.get_attribute("aria-pressed")
        first.focus()
        tab.keyboard.press("Space")
        tab.wait_for_function(f"() => document.querySelector('tbody button').ariaPressed !== '{pressed}'")
        assert tab.evaluate("() => document.activeElement === document.querySelector('tbody button')")
        tab.get_by_role("button", name="Choose for me").click()
        tab.wait_for_function(f"() => document.querySelector('tbody button').ariaPressed === '{pressed}'")
        assert unexpected(server.url, trouble) == []
        tab.close()


def test_a_point_near_the_pointer_is_named(browser: "Browser", rich: Path) -> None:
    with served(rich, every=EVERY) as server:
        tab, trouble = opened(browser, server.url)
        tab.wait_for_selector(".chart path")
        end = tab.locator(".chart:nth-child(2) circle.near").last.bounding_box()
        assert end is not None
        tab.mouse.move(end["x"] - 2, end["y"] + 2)
        tip = tab.locator(".tip:visible")
        assert re.fullmatch(r"ratio=\d+( method=\w+)?: [\d.]+ at step 9", tip.inner_text())
        shown = tip.bounding_box()
        assert shown is not None and 0 < end["y"] - shown["y"] < 60
        assert tab.locator(".chart path.hot").count() == 1
        tab.mouse.move(0, 0)
        assert tab.locator(".tip:visible, .hot").count() == 0
        assert unexpected(server.url, trouble) == []
        tab.close()


def test_it_is_whole_and_legible_on_a_desk_and_on_a_phone_by_day_and_by_night(browser: "Browser", rich: Path) -> None:
    with served(rich, every=EVERY) as server:
        tab, trouble = opened(browser, server.url)
        tab.wait_for_selector(".chart path")
        for width, scheme in itertools.product((1280, 390), ("light", "dark")):
            tab.set_viewport_size({"width": width, "height": 900})
            tab.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            assert tab.evaluate(OVERFLOW) <= 0
            contrast = tab.evaluate(CONTRAST)
            assert len(contrast) > 80 and min(contrast)[0] >= 4.5, min(contrast)
        assert unexpected(server.url, trouble) == []
        tab.close()


def test_it_connects_again_by_itself(browser: "Browser", rich: Path) -> None:
    with served(rich, every=EVERY) as server:
        tab, _ = opened(browser, server.url)
        tab.wait_for_selector("#runs .running")
    tab.wait_for_selector(".lost")
    assert tab.locator("#runs tr").count() == 12, "what was seen stays"
    with served(rich, every=EVERY, port=server.server_port):
        tab.wait_for_selector(".live")
        assert tab.locator("#runs tr").count() == 12
    tab.close()
