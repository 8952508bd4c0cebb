"""`model=X` is conf/model/X.yaml of the current folder, else the one that comes with loralab; so for every group."""

from pathlib import Path
from typing import List

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin

from hydra_plugins.loralab.sweeps_path import read_yaml
from loralab import places

__all__ = ["ConfPath", "GroupsSource"]


class GroupsSource(ConfigSource):
    """The groups of a folder, not the files beside them: the primary config is always loralab's."""

    @staticmethod
    def scheme() -> str:
        return "groups"

    def load_config(self, config_path: str) -> ConfigResult:
        if not self.is_config(config_path):
            raise ConfigLoadError(f"Config not found : {config_path}")
        config, header = read_yaml(self._file(config_path), f"conf/{config_path}")
        return ConfigResult(config=config, path=f"{self.scheme()}://{self.path}", provider=self.provider, header=header)

    def available(self) -> bool:
        return Path(self.path).is_dir()

    def is_group(self, config_path: str) -> bool:
        return Path(self.path, config_path).is_dir()

    def is_config(self, config_path: str) -> bool:
        return "/" in config_path and self._file(config_path).is_file()

    # List: as in sweeps_path.py
    def list(self, config_path: str, results_filter: ObjectType | None) -> List[str]:
        found: list[str] = []
        for entry in Path(self.path, config_path).iterdir():
            name = f"{config_path}/{entry.name}" if config_path else entry.name
            self._list_add_result(found, name, entry.name, results_filter)
        return sorted(set(found))

    def _file(self, config_path: str) -> Path:
        return Path(self.path, self._normalize_file_name(config_path))


class ConfPath(SearchPathPlugin):
    """Puts conf/ of the current folder before loralab's; other Hydra applications are left alone."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Called by Hydra."""
        own, ours = places.HERE / "conf", places.OURS / "conf"
        main = [Path(each.path) for each in search_path.get_path() if each.provider == "main"]
        if own != ours and own.is_dir() and main == [ours]:
            search_path.prepend(provider="here", path=f"{GroupsSource.scheme()}://{own}", anchor="main")
