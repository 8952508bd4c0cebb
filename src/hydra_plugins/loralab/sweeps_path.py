"""`sweeps=X` is the file sweeps/X.yaml of the current folder, else the one that comes with loralab."""

from pathlib import Path
from typing import Any, List

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf
from yaml import MarkedYAMLError

from loralab import places
from loralab.errors import UserError

__all__ = ["SweepsPath", "SweepsSource", "read_yaml"]

GROUP = "sweeps"


class SweepsSource(ConfigSource):
    """A folder of configs as the group `sweeps`, so that nothing else beside the folder is taken for configs."""

    @staticmethod
    def scheme() -> str:
        return "sweeps"

    def load_config(self, config_path: str) -> ConfigResult:
        if not self.is_config(config_path):
            raise ConfigLoadError(f"Config not found : {config_path}")
        config, header = read_yaml(self._file(config_path), config_path)
        header["package"] = header.get("package") or "_global_"  # a study's keys are those of the whole configuration
        return ConfigResult(
            config=config,
            path=f"{self.scheme()}://{self.path}",
            provider=self.provider,
            header=header,
        )

    def available(self) -> bool:
        return Path(self.path).is_dir()

    def is_group(self, config_path: str) -> bool:
        return config_path in ("", GROUP) or (_is_ours(config_path) and Path(self.path, _inside(config_path)).is_dir())

    def is_config(self, config_path: str) -> bool:
        return _is_ours(config_path) and self._file(config_path).is_file()

    # List: Python 3.14 evaluates annotations inside the class, where `list` is this very method
    def list(self, config_path: str, results_filter: ObjectType | None) -> List[str]:
        if config_path == "":
            return [GROUP] if results_filter in (None, ObjectType.GROUP) else []
        found: list[str] = []
        for entry in Path(self.path, _inside(config_path)).iterdir() if _is_ours(config_path) else ():
            self._list_add_result(found, f"{config_path}/{entry.name}", entry.name, results_filter)
        return sorted(set(found))

    def _file(self, config_path: str) -> Path:
        return Path(self.path, self._normalize_file_name(_inside(config_path)))


class SweepsPath(SearchPathPlugin):
    """Adds both folders to Hydra's search path."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Called by Hydra."""
        for root in dict.fromkeys((places.HERE, places.OURS)):
            if (root / GROUP).is_dir():
                search_path.append(provider="loralab", path=f"{SweepsSource.scheme()}://{root / GROUP}")


def read_yaml(path: Path, name: str) -> tuple[Any, dict[str, str | None]]:
    """A config and its header, such as `@package`; UserError with the line for what is no YAML. name: without .yaml."""
    text = path.read_text(encoding="utf-8")
    try:
        return OmegaConf.create(text), ConfigSource._get_header_dict(text)
    except MarkedYAMLError as error:
        line = 1 if error.problem_mark is None else error.problem_mark.line + 1
        raise UserError(f"{name}.yaml, line {line}: {error.problem}, which is no YAML") from error


def _is_ours(config_path: str) -> bool:
    return config_path.split("/")[0] == GROUP


def _inside(config_path: str) -> str:
    return config_path.removeprefix(GROUP).lstrip("/")
