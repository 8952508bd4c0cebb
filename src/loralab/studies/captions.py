"""Captions from a CSV's columns: the setting, the number of seeds, and the commit of the code."""

import pandas as pd

from loralab.config.overrides import to_override

__all__ = ["NAMES", "SETTING", "caption", "code", "provenance", "seeds", "setting", "tasks"]

NAMES = {
    "rotten_tomatoes": "Rotten Tomatoes",
    "trec": "TREC",
    "trec_fine": "TREC (fine)",
    "imdb": "IMDb",
    "sql": "SQL",
    "minilm": "MiniLM",
    "smollm2": "SmolLM2-135M",
    "tiny": "tiny",
}
SETTING = ("model", "lora.rank", "lora.alpha", "lora.targets", "train.steps", "train.epochs", "train.batch_size")


def caption(frame: pd.DataFrame) -> str:
    """`TREC, MiniLM, LoRA with r = ..., 2 seeds. 18 runs (0 diverged), code 1a2b3c4.`: the parts with columns."""
    there = set(frame.columns)
    parts = [tasks(frame)] if "task" in there else []
    parts += [setting(frame)] if set(SETTING) <= there else []
    parts += [seeds(frame)] if "seed" in there else []
    if {"hash", "status", "commit"} <= there:
        origin = provenance(frame)
    else:
        origin = code(frame) if "commit" in there else f"{len(frame)} rows"
    return f"{'. '.join([*([', '.join(parts)] if parts else []), origin])}."


def setting(frame: pd.DataFrame) -> str:
    """`MiniLM, LoRA with r = alpha = 8 on q and v, 100 steps of 32`: the settings that all runs share, from SETTING."""

    def one(key: str) -> str:
        values = frame[key].dropna().unique()
        return " or ".join(
            NAMES.get(value, value) if isinstance(value, str) else to_override(value) for value in values
        )

    same = (frame["lora.rank"] == frame["lora.alpha"]).all()
    alpha = "" if same else f", alpha = {one('lora.alpha')}"
    rank = f"r = {'alpha = ' if same else ''}{one('lora.rank')}{alpha}"
    length = f"{one('train.steps')} steps" if frame["train.steps"].notna().all() else f"{one('train.epochs')} epochs"
    targets = " and ".join(one("lora.targets").rsplit(",", 1)).replace(",", ", ")
    wide = f" at {one('model.widen')} times its width" if "model.widen" in frame else ""
    return f"{one('model')}{wide}, LoRA with {rank} on {targets}, {length} of {one('train.batch_size')}"


def provenance(frame: pd.DataFrame) -> str:
    """`432 runs (3 diverged), code 1a2b3c4 (+1 other)`: the end of a caption."""
    runs = frame.drop_duplicates("hash")
    diverged = int((runs["status"] == "diverged").sum())
    return f"{len(runs)} runs ({diverged} diverged), {code(runs)}"


def code(frame: pd.DataFrame) -> str:
    """`code 1a2b3c4 (+1 other)`: the rows' commits, the most frequent first; the caption's end if no run trained."""
    versions = frame["commit"].fillna("unknown").astype(str).str[:7].value_counts().index
    others = f" (+{len(versions) - 1} other)" if len(versions) > 1 else ""
    return f"code {versions[0]}{others}"


def tasks(frame: pd.DataFrame) -> str:
    """`TREC`, or several with commas."""
    return ", ".join(NAMES.get(name, name) for name in frame["task"].unique())


def seeds(frame: pd.DataFrame) -> str:
    """`3 seeds`, `1 seed`."""
    count = frame["seed"].nunique()
    return f"{count} seed{'s' if count != 1 else ''}"
