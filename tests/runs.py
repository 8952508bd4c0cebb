"""Small real runs for tests: the tiny backbone on real sentences, in a store of the test's own."""

from pathlib import Path

from hydra import compose, initialize_config_dir

from loralab.config import Config, from_hydra

CONF = Path(__file__).resolve().parents[1] / "conf"
SMALL = (
    "model=tiny",
    "tracker=none",
    "task.train_rows=64",
    "train.max_length=32",
    "train.batch_size=8",
    "train.steps=12",
    "train.epochs=null",
    "train.eval_every=6",
    "train.log_every=1",
    "train.threads=1",
    "train.device=cpu",
)


def config(store: Path, *overrides: str) -> Config:
    """A small run's config, as the command line would compose it."""
    import loralab.entry  # registers the schema

    assert loralab.entry
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return from_hydra(compose("config", [*SMALL, f"store={store}", *overrides]))
