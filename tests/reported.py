"""A finished study of two stages with its analysis, for reports; its claim, labels and notes contain markup."""

from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from loralab.studies import results
from tests.small_studies import FIRST, NAME, checkout

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
    return "Validation loss {MARKUP} against lr_A. " + str(len(frame)) + " runs, code abcdef0."


def summary(frame):
    means = frame.groupby(["stage", "lora.ratio"], sort=False)["validation/loss"].mean().reset_index()
    wide = {{f"score {{i}}": means["validation/loss"] + i for i in range(12)}}
    settings = {{"stage": means["stage"], "ratio": means["lora.ratio"]}}
    return pd.DataFrame({{**settings, **wide, "note": "{MARKUP}", "good": True}})


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


def finished() -> pd.DataFrame:
    """The study's results; the lower rate of each arm is the better one."""
    runs = pd.DataFrame(ROWS, columns=["stage", "seed", "lora.ratio", "optim.lr"])
    count = range(len(runs))
    runs["status"] = "success"
    runs["validation/loss"] = runs["optim.lr"] + 0.5
    runs["diff"] = [f"{MARKUP}{at}" if at < 3 else None for at in count]
    return runs.assign(hash=[f"{at:010x}" for at in count], commit="c" * 40, threads=1)


def reported(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    """A checkout with this study, its results and its analysis; loralab uses it."""
    root = checkout(folder, patch)
    sweep = root / "sweeps" / f"{NAME}.yaml"
    claim = "A ratio of 16 reaches a lower loss."
    sweep.write_text(sweep.read_text().replace(claim, f"'{MARKUP} {claim}'\n      margin: 0.5 points"))
    (root / "analysis").mkdir()
    (root / "analysis" / f"{NAME}.py").write_text(ANALYSIS)
    results.save(finished(), root / "analysis" / "results" / f"{NAME}.csv")
    return root


class Parsed(HTMLParser):
    """The tags of a page with their attributes, and its text outside of style and script."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(html.replace("<wbr>", ""))
        self.text = " ".join(" ".join(self.texts).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts += [data] if self.tags and self.tags[-1][0] not in ("style", "script") else []

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]
