"""How Sphinx builds this site: MyST pages, two of them executed, and the API from docstrings. Needs no network."""

import os
import re
import tempfile
from pathlib import Path
from typing import Any

project = "loralab"
author = "the loralab authors"
copyright = "the loralab authors, MIT license"

extensions = ["myst_nb", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]

html_theme = "pydata_sphinx_theme"
html_title = "loralab"
html_static_path = ["_static"]
html_css_files = ["site.css"]
templates_path = ["_templates"]
html_sidebars = {"**": ["pages"]}
html_show_sourcelink = False
html_theme_options = {
    "show_prev_next": True,
    "navbar_center": [],  # the list of pages is at the left
    "collapse_navigation": False,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}

myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 180  # the notebook's sweep, also on a busy machine
_store = tempfile.TemporaryDirectory()  # the notebook trains its runs at each build
os.environ["LORALAB_STORE"] = _store.name

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
python_use_unqualified_type_names = True
# Nothing of other packages can be looked up offline; a name of this one must resolve.
nitpick_ignore_regex = [(r"py:.*", r"(?!loralab\.).*")]
# TaskAdapter.folder, the parts of TrainedRun and of Claim, which no caller needs, and what is in record.json
nitpick_ignore = [
    ("py:class", f"loralab.{name}")
    for name in (
        "methods.formats.peft_folder.PeftLoRA", "store.record.Record", "store.record.PausedRecord",
        "store.record.FailedRecord", "runs.plan.Plan", "backbones.load.Backbone", "runs.outputs.Outputs",
        "studies.pooled.Pooled",
    )
]  # fmt: skip

FIGURE = re.compile(r"!\[[^\]]*\]\(\.\./analysis/figures/(\w+)\.png\)")


def with_captions(_app: Any, _page: str, source: list[str]) -> None:
    """A study's figure has its caption beneath, from the text file beside it."""

    def both(image: re.Match[str]) -> str:
        caption = Path(__file__).parents[1] / "analysis" / "figures" / f"{image[1]}.txt"
        return f"{image[0]}\n\n*{caption.read_text(encoding='utf-8').strip()}*"

    source[0] = FIGURE.sub(both, source[0])


def plain_text(_app: Any, _what: str, _name: str, _object: Any, _options: Any, lines: list[str]) -> None:
    """Docstrings are plain text with `code` in backticks: everything else that reStructuredText reads is escaped."""
    parts = re.split(r"(`[^`]+`)", "\n".join(lines))
    for at, part in enumerate(parts):
        parts[at] = f"`{part}`" if at % 2 else re.sub(r"([*|_])", r"\\\1", part)
    lines[:] = "".join(parts).split("\n")


def setup(app: Any) -> None:
    app.connect("source-read", with_captions)
    app.connect("autodoc-process-docstring", plain_text)
