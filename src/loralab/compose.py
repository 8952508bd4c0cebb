"""Overrides -> composed configs, as Hydra composes a sweep's jobs, in a twentieth of its time.

Hydra reads and merges every file again for each job (70 ms). Here what chooses files is composed once, and a job's
values are put into a copy of that.
"""

import pickle
from collections.abc import Sequence
from typing import cast

from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

__all__ = ["Composer"]


class Composer:
    """Composes the jobs of one sweep: `master` is the configuration that Hydra composed for the sweep itself."""

    def __init__(self, loader: ConfigLoader, master: DictConfig) -> None:
        self.loader, self.master = cast(ConfigLoaderImpl, loader), master
        self.parser = OverridesParser.create(config_loader=loader)
        self.parsed: dict[str, Override] = {}
        self.bases: dict[tuple[str, ...], tuple[bytes, bytes]] = {}  # pickled: without the hydra node, and with it

    def settings(self, overrides: Sequence[str]) -> DictConfig:
        """The job's config without its hydra node; raises what Hydra raises for what it cannot compose."""
        return self._composed(overrides, 0)

    def job(self, overrides: Sequence[str], number: int) -> DictConfig:
        """The job's config with its hydra node, as a launcher hands it to `hydra.core.utils.run_job`."""
        config = self._composed(overrides, 1)
        given = [self._parse(text) for text in overrides]
        with read_write(config.hydra), open_dict(config.hydra):
            job, naming = config.hydra.job, config.hydra.job.config.override_dirname
            config.hydra.overrides.task = [o.input_line for o in given if not o.is_hydra_override()]
            job.override_dirname = get_overrides_dirname(
                [o for o in given if not o.is_hydra_override()],
                kv_sep=naming.kv_sep,
                item_sep=naming.item_sep,
                exclude_keys=naming.exclude_keys,
            )
            job.num = number
            job.id = str(number)
        OmegaConf.copy_cache(from_config=self.master, to_config=config)
        return config

    def _composed(self, overrides: Sequence[str], which: int) -> DictConfig:
        chooses = tuple(text for text in overrides if not self._is_value(text))
        if chooses not in self.bases:
            whole = self.loader.load_sweep_config(self.master, list(chooses))
            with_hydra = pickle.dumps(whole)
            with read_write(whole), open_dict(whole):
                del whole["hydra"]
            self.bases[chooses] = (pickle.dumps(whole), with_hydra)
        config: DictConfig = pickle.loads(self.bases[chooses][which])
        values = [self._parse(text) for text in overrides if self._is_value(text)]
        ConfigLoaderImpl._apply_overrides_to_config(values, config)
        return config

    def _is_value(self, text: str) -> bool:
        """Whether it is about a value, and chooses no file."""
        parsed = self._parse(text)
        if parsed.is_hydra_override() or parsed.is_sweep_override():  # Hydra refuses a list of values in one job
            return False
        return not self.loader.repository.group_exists(parsed.key_or_group)

    def _parse(self, text: str) -> Override:
        if text not in self.parsed:
            self.parsed[text] = self.parser.parse_overrides([text])[0]
        return self.parsed[text]
