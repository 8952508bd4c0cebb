"""Overrides -> composed configs: the results of Hydra's composition of a sweep's jobs, in 1/20 of the time.

Hydra reads and merges every file again for each job (70 ms). Here Hydra composes each choice of files once; the values
of a job are applied to a copy.
"""

import contextlib
import copy
import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from loralab.compat import hydra as compat
from loralab.config.hydra_node import check_hydra, check_package
from loralab.config.pretrain import PretrainConfig
from loralab.config.schema import Config
from loralab.entries import typed
from loralab.places import OURS

__all__ = ["CONF", "Composer", "composed", "configs", "leaves", "register_schemas"]

CONF = OURS / "conf"
"""The folder with the default configs."""
MAPPINGS = ("lora.rank_pattern", "model.rates")
"""The settings that are mappings from names of the user's choice."""


class Composer:
    """Composes the jobs of one sweep: `master` is the configuration that Hydra composed for the sweep itself.

    Hydra composes every job where it lacks the function that applies values to a config, or where, in an untested
    release, the first job's config differs from Hydra's.
    """

    def __init__(self, loader: ConfigLoader, master: DictConfig) -> None:
        self.loader, self.master = loader, master
        self.parser = OverridesParser.create(config_loader=loader)
        self.parsed: dict[str, Override] = {}
        self.groups: dict[str, bool] = {}
        self.bases: dict[tuple[str, ...], tuple[bytes, bytes]] = {}  # pickled: without the hydra node, and with it
        self.quick: bool | None = True if compat.is_read() else None  # None: not yet compared with Hydra

    def settings(self, overrides: Sequence[str]) -> DictConfig:
        """The job's config without its hydra node; raises the same errors as Hydra."""
        return self._composed(overrides, 0)

    def job(self, overrides: Sequence[str], number: int) -> DictConfig:
        """The job's config with its hydra node, as a launcher passes it to `hydra.core.utils.run_job`."""
        config = self._composed(overrides, 1)
        given = [self._parse(text) for text in overrides]
        with read_write(config.hydra), open_dict(config.hydra):
            job, naming = config.hydra.job, config.hydra.job.config.override_dirname
            config.hydra.overrides.task = [o.input_line for o in given if not o.is_hydra_override()]
            named = [o for o in given if not o.is_hydra_override() and o.key_or_group not in naming.exclude_keys]
            text = naming.item_sep.join(sorted(str(o.input_line) for o in named))
            job.override_dirname = text.replace("=", naming.kv_sep)
            job.num = number
            job.id = str(number)
        OmegaConf.copy_cache(from_config=self.master, to_config=config)
        return config

    def _composed(self, overrides: Sequence[str], which: int) -> DictConfig:
        if self.quick is None:
            self.quick = self._quickly(overrides, 0) == self._by_hydra(overrides)[0]
        found = self._quickly(overrides, which) if self.quick else None
        return self._by_hydra(overrides)[which] if found is None else found

    def _quickly(self, overrides: Sequence[str], which: int) -> DictConfig | None:
        """The values, applied to a copy of the config of the chosen files; None where Hydra lacks the function."""
        chooses = tuple(text for text in overrides if not self._is_value(text))
        if chooses not in self.bases:
            bare, whole = self._by_hydra(chooses)
            self.bases[chooses] = (pickle.dumps(bare), pickle.dumps(whole))
        config: DictConfig = pickle.loads(self.bases[chooses][which])
        values = [self._parse(text) for text in overrides if self._is_value(text)]
        return config if compat.apply_values(self.loader, values, config) else None

    def _by_hydra(self, overrides: Sequence[str]) -> tuple[DictConfig, DictConfig]:
        """Hydra's config, without the hydra node and with it."""
        whole = self.loader.load_sweep_config(self.master, list(overrides))
        bare = copy.deepcopy(whole)
        with read_write(bare), open_dict(bare):
            del bare["hydra"]
        return bare, whole

    def _is_value(self, text: str) -> bool:
        """Whether the override sets a value, rather than choose a file."""
        parsed = self._parse(text)
        if parsed.is_hydra_override() or parsed.is_sweep_override():  # Hydra refuses a list of values in one job
            return False
        key = parsed.key_or_group
        if key not in self.groups:
            self.groups[key] = bool(self.loader.get_group_options(key, results_filter=None))
        return not self.groups[key]

    def _parse(self, text: str) -> Override:
        if text not in self.parsed:
            self.parsed[text] = self.parser.parse_overrides([text])[0]
        return self.parsed[text]


def register_schemas() -> None:
    """Registers with Hydra the schemas that conf/*.yaml names, and the checks of what it composes.

    Repeated calls are harmless.
    """
    OmegaConf.register_new_resolver("typed", typed, replace=True)  # for --help
    compat.share_store()
    compat.guard(lambda config: check_hydra(config, compat.plugins()), check_package)
    schema = OmegaConf.structured(Config)
    # Without this, Hydra refuses new keys in a schema's mapping; with it lora.rank_pattern={v:16} needs no +.
    for key in MAPPINGS:
        OmegaConf.update(schema, key, {})
        OmegaConf.set_struct(OmegaConf.select(schema, key), False)
    ConfigStore.instance().store(name="schema", node=schema)
    ConfigStore.instance().store(name="pretrain_schema", node=PretrainConfig)


@contextlib.contextmanager
def configs(folder: Path = CONF) -> Iterator[None]:
    """Inside, `hydra.compose` composes from this folder, with the schemas registered; also where Hydra is at work."""
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    register_schemas()
    running = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()  # Hydra refuses a second one at once
    try:
        with initialize_config_dir(str(folder), version_base="1.3"):
            yield
    finally:
        GlobalHydra.instance().hydra = running


def composed(overrides: list[str]) -> dict[str, Any]:
    """Dotted key -> value of the config that these overrides compose."""
    from hydra import compose

    with configs():
        return dict(leaves(compose("config", overrides)))


def leaves(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys with plain values, interpolations resolved; lists and MAPPINGS count as values.

    node: a composed config, or the nested mappings of `config_values`.
    """
    for name in node:
        key = f"{prefix}{name}"
        value = node[name]
        if isinstance(value, (DictConfig, dict)) and key not in MAPPINGS:
            yield from leaves(value, f"{key}.")
        else:
            yield key, OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
