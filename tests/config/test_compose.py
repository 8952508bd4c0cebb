"""Tests of the composer: its configs and errors equal Hydra's for the same overrides."""

from collections.abc import Iterator, Sequence

import pytest
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from loralab.config.compose import Composer, configs
from loralab.config.explain import explain
from loralab.config.schema import from_hydra
from tests.small_runs import SMALL

JOBS = [
    (),
    ("lora.rank=4",),
    ("lora.rank=4", "lora.rank=2"),
    ("model=tiny", "task=trec", "method=lora", "tracker=none"),
    ("optim.lr=1e-3", "model=roberta", "lora.ratio=4"),
    ("method=lora", "lora.ratio=2"),
    ("lora.ratio=2", "method=lora_plus"),
    ("+sweeps=first", "seed=3"),
    ("+sweeps=first", "train.steps=7", "optim.lr=0.5"),
    ("+lora.rank_pattern.v=16",),
    ("++lora.rank=3", "lora.rank_pattern={v:16,q:4}"),
    ("lora.rank_pattern={q:4,v:16}",),
    ("~tracker",),
    ("~method=lora_plus", "lora.alpha=16"),
    ("optim.lr=${model.default_lr}", "optim.head_lr=${optim.lr}", "optim.lr=0.25"),
    ("seed=5", "data_seed=${init_seed}"),
    ("store=a b", "task.text=[a,'b c']", "task.label=null"),
    ("hydra.job.name=mine", "lora.rank=4"),
    ("lora.rank=4", "hydra.sweep.dir=there", "hydra.launcher.slots=3"),
    ("hydra/launcher=basic", "seed=1"),
]
MISTAKES = [
    ("lora.nope=1",),
    ("lora.rank=x",),
    ("lora.rank=null",),
    ("seed=1", "optim.betas=[1,x]"),
    ("model=nope",),
    ("nope=1",),
    ("+lora.rank=1",),
    ("~lora.nope",),
    ("lora.rank=4,8",),
    ("tracker.project=a,b",),
    ("tracker.project=a", "seed=range(3)"),
    ("model=tiny,roberta",),
    ("lora@x=1",),
    ("lora.rank=[",),
    ("hydra.nope=1",),
    ("lora=1",),
    ("~lora.dropout",),
]


@pytest.fixture(scope="module")
def hydra() -> Iterator[tuple[ConfigLoader, DictConfig]]:
    """Hydra's loader, and what it composed for a sweep of small runs."""
    with configs():
        running = GlobalHydra.instance().hydra
        assert running is not None
        arguments = [*SMALL, "seed=0,1", "hydra.job.config.override_dirname.exclude_keys=[seed]"]
        master = running.compose_config("config", arguments, run_mode=RunMode.MULTIRUN, with_log_configuration=False)
        yield running.config_loader, master


@pytest.fixture
def composer(hydra: tuple[ConfigLoader, DictConfig]) -> Composer:
    return Composer(*hydra)


def by_hydra(hydra: tuple[ConfigLoader, DictConfig], overrides: Sequence[str], number: int) -> DictConfig:
    """What Hydra's own launcher hands to run_job."""
    loader, master = hydra
    config = loader.load_sweep_config(master, list(overrides))
    OmegaConf.set_struct(config.hydra, False)
    OmegaConf.set_readonly(config.hydra, False)
    config.hydra.job.id, config.hydra.job.num = str(number), number
    return config


def texts(config: DictConfig) -> list[str]:
    """The config as YAML: as it stands, and with every interpolation resolved that can be."""
    job = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    return [OmegaConf.to_yaml(config), OmegaConf.to_yaml(job, resolve=True)]


@pytest.mark.parametrize("job", JOBS, ids=" ".join)
def test_a_job_is_what_hydra_composes(
    job: Sequence[str], composer: Composer, hydra: tuple[ConfigLoader, DictConfig]
) -> None:
    overrides = [*SMALL, *job]
    wanted = texts(by_hydra(hydra, overrides, 7))
    assert texts(composer.job(overrides, 7)) == wanted
    composer.job([*SMALL, "lora.rank=77"], 8)
    assert texts(composer.job(overrides, 7)) == wanted, "another job has changed it"


@pytest.mark.parametrize("job", JOBS, ids=" ".join)
def test_settings_are_the_job_without_its_hydra_node(job: Sequence[str], composer: Composer) -> None:
    config = composer.job([*SMALL, *job], 0)
    OmegaConf.set_struct(config, False)
    OmegaConf.set_readonly(config, False)
    del config["hydra"]
    settings = composer.settings([*SMALL, *job])
    assert "hydra" not in settings
    assert OmegaConf.to_yaml(settings) == OmegaConf.to_yaml(config)


def test_the_order_of_a_mapping_is_kept(composer: Composer) -> None:
    orders = [list(composer.settings([f"lora.rank_pattern={{{p}}}"]).lora.rank_pattern) for p in ("q:1,v:2", "v:2,q:1")]
    assert orders == [["q", "v"], ["v", "q"]]


def test_jobs_are_typed_as_hydras(composer: Composer, hydra: tuple[ConfigLoader, DictConfig]) -> None:
    overrides = [*SMALL, "lora.rank=4", "optim.lr=1"]
    ours, theirs = (from_hydra(c) for c in (composer.settings(overrides), _bare(by_hydra(hydra, overrides, 0))))
    assert ours == theirs and isinstance(ours.optim.lr, float)


@pytest.mark.parametrize("job", MISTAKES, ids=" ".join)
def test_a_mistake_is_the_one_that_hydra_tells(
    job: Sequence[str], composer: Composer, hydra: tuple[ConfigLoader, DictConfig]
) -> None:
    def told(compose: object) -> str | None:
        assert callable(compose)
        with pytest.raises(Exception) as caught:  # noqa: PT011  # whatever Hydra raises
            compose()
        return explain(caught.value)

    theirs = told(lambda: by_hydra(hydra, [*SMALL, *job], 0))
    assert theirs is not None
    assert told(lambda: composer.settings([*SMALL, *job])) == theirs
    assert told(lambda: composer.job([*SMALL, *job], 0)) == theirs


def test_a_mistake_leaves_the_next_job_whole(composer: Composer, hydra: tuple[ConfigLoader, DictConfig]) -> None:
    with pytest.raises(Exception, match="rank"):
        composer.settings([*SMALL, "seed=9", "lora.rank=x"])
    assert texts(composer.job(SMALL, 0)) == texts(by_hydra(hydra, SMALL, 0))


def test_the_store_of_every_job_is_the_sweeps(composer: Composer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORALAB_STORE", "elsewhere")
    assert composer.settings(SMALL).store == "elsewhere"


def _bare(config: DictConfig) -> DictConfig:
    OmegaConf.set_struct(config, False)
    OmegaConf.set_readonly(config, False)
    del config["hydra"]
    return config
