"""Tests of plans: the hash of a run does not depend on refactorings or on the machine."""

import json
from pathlib import Path
from typing import Any

import pytest

from loralab import device
from loralab.errors import UserError
from loralab.files import write_json
from loralab.runs.plan import plan, replan
from loralab.runs.run import run
from loralab.store.run_directory import RunDirectory, run_hash
from tests.families import FAMILIES, save_checkpoint
from tests.small_runs import config

# The directories' names of stored runs: to change one is to lose every stored run of its kind.
STORED = {
    ("task=trec", "optim.lr=1e-3"): "tiny-trec-lora-r8-x4-s0-562ac4c653",
    ("task=trec", "method=intrinsic", "seed=3"): "tiny-trec-intrinsic-s3-85317f2749",
    ("model=tiny_decoder", "task=sql", "optim.lr=1e-3"): "tiny_decoder-sql-lora-r8-x4-s0-89297f09df",
    (
        "model=tiny_decoder", "task=sql", "task.eval_rows=null", "lora.targets=[q,v]", "lora.rank_pattern={q:2}",
        "probe.every=5", "optim.lr=1e-3",
    ): "tiny_decoder-sql-lora-r8-x4-s0-7820bd086d",
}  # fmt: skip


@pytest.mark.parametrize("bf16", [True, False])
@pytest.mark.parametrize("overrides", STORED, ids=" ".join)
def test_stored_runs_keep_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: tuple[str, ...], bf16: bool
) -> None:
    """On every processor: whether it multiplies bf16 in hardware decides nothing at the tiny backbones' width."""
    monkeypatch.setattr(device, "cpu_has_bf16", lambda: bf16)
    assert plan(config(tmp_path, *overrides)).directory.path.name == STORED[overrides]


@pytest.mark.parametrize(
    "override",
    [
        "train.threads=2",
        "tracker=wandb",
        "train.checkpoint_seconds=1",
        "train.pause_at=0.3",
        "train.eval_every=6.0",
        "lora.targets=[v,q]",
        "lora.targets=[query,value]",
        "lora.targets=[value,q]",
        "name=mine",
        "tags=[a,b]",
        "task.title=mine",
        "train.again=true",
    ],
)
def test_what_does_not_change_the_record_is_not_in_the_hash(tmp_path: Path, override: str) -> None:
    plain = plan(config(tmp_path / "one", "lora.targets=[q,v]"))
    other = plan(config(tmp_path / "other", "lora.targets=[q,v]", override))
    assert other.directory.hash == plain.directory.hash


def test_a_stored_run_keeps_the_spelling_of_its_targets(tmp_path: Path) -> None:
    asked = config(tmp_path, "lora.targets=[query,value]")
    assert plan(asked).directory == plan(config(tmp_path, "lora.targets=[q,v]")).directory
    # the rate of `auto` counts names as all roles, so an older run has a lower one
    asked.optim.lr = 1e-3
    older = plan(asked).identity
    digest = run_hash(older | {"lora": older["lora"] | {"targets": ["query", "value"]}})
    (tmp_path / "runs" / f"older-{digest}").mkdir(parents=True)
    assert plan(asked).directory.path.name == f"older-{digest}"
    assert plan(asked).config.lora.targets == ["query", "value"]


def test_own_data_and_an_own_backbone_are_in_the_name_of_the_run(tmp_path: Path) -> None:
    (tmp_path / "my ads.csv").write_text("text,label\n" + "".join(f"text {i},{i % 2}\n" for i in range(40)))
    own = ["task=local", f"task.files.train={tmp_path}/my ads.csv", "task.text=[text]", "task.label=label"]
    base = save_checkpoint(FAMILIES["bert"]().base_model, tmp_path / "small_bert")
    planned = plan(config(tmp_path, *own, f"model.path={base}"))
    assert planned.directory.path.name.startswith("small_bert-my_ads-lora-r8-x4-s0-")
    titled = plan(config(tmp_path, *own, f"model.path={base}", "task.title=ads"))
    assert titled.directory.path.name == f"small_bert-ads-lora-r8-x4-s0-{planned.directory.hash}"
    long = plan(config(tmp_path, *own, f"model.path={base}", f"task.title={'a' * 100}"))
    assert long.directory.path.name == f"small_bert-{'a' * 60}-lora-r8-x4-s0-{planned.directory.hash}"


def test_the_factor_of_the_width_and_its_noise_are_in_the_hash_and_the_factor_in_the_name(tmp_path: Path) -> None:
    overrides = (["model.widen=1"], ["model.widen=2"], ["model.widen=4"], ["model.widen=4", "model.widen_noise=1"])
    planned = [plan(config(tmp_path, "task=trec", "optim.lr=1e-3", *each)) for each in overrides]
    assert planned[0].directory.path.name == STORED["task=trec", "optim.lr=1e-3"]
    assert len({each.directory.hash for each in planned}) == 4
    assert [each.directory.path.name.split("-trec")[0] for each in planned] == ["tiny", "tiny-w2", "tiny-w4", "tiny-w4"]
    assert [each.source.width for each in planned] == [64, 128, 256, 256]
    assert len({each.source.identity for each in planned}) == 1, "the weights are those of one checkpoint"


def test_a_backbone_that_cannot_be_widened_is_refused_before_it_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^model.widen: got 2; random is a 't5' model"):
        plan(config(tmp_path, "model=tiny_seq2seq", "task=sql", "model.widen=2"))


def test_to_plan_makes_no_store(tmp_path: Path) -> None:
    plan(config(tmp_path / "store"))
    assert not (tmp_path / "store").exists()


def test_a_finished_run_is_planned_again_in_fp32_on_the_same_weights_and_data(finished: RunDirectory) -> None:
    record = finished.finished()
    assert record is not None
    again = replan(finished, record)
    assert (again.device.type, again.config.train.precision) == ("cpu", "fp32")
    assert again.source.identity == record["identity"]["model"]["weights"]
    assert again.directory == finished, "the run was in fp32 on the CPU"


def with_record(run: RunDirectory, directory: Path, **changes: Any) -> RunDirectory:
    """A copy of the run's two descriptions, with other values in the record; None removes a key."""
    copied = RunDirectory(directory / run.path.name)
    copied.begin((run.path / "config.yaml").read_text())
    record = json.loads((run.path / "record.json").read_text()) | changes
    write_json(copied.path / "record.json", {key: value for key, value in record.items() if value is not None})
    return copied


@pytest.mark.parametrize(
    "identity",
    [{}, {"model": {"weights": 3}, "task": {"data": {}}}, {"model": [], "task": None}, {"model": {"weights": "x"}}],
)
def test_a_record_without_its_identity_is_one_line(finished: RunDirectory, tmp_path: Path, identity: Any) -> None:
    of = with_record(finished, tmp_path, identity=identity)
    record = json.loads((of.path / "record.json").read_text())
    with pytest.raises(UserError, match=rf"^{of.path.name}: record.json lacks identity.model.weights or [^\n]*$"):
        replan(of, record)


@pytest.mark.parametrize("recorded", [True, False], ids=["recorded", "older"])
def test_a_backbone_is_found_where_it_was_in_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recorded: bool
) -> None:
    """Also from another folder than the one that a relative model.path began in; a moved one is named."""
    save_checkpoint(FAMILIES["bert"](), tmp_path / "there" / "base")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "there")
    asked = config(
        tmp_path / "store", "model.name=mine", "model.path=base", "train.steps=1", "train.max_length=8",
    )  # fmt: skip
    run(asked)
    of = plan(asked).directory
    record = of.finished()
    assert record is not None
    if not recorded:
        del record["backbone"]
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert replan(of, record).source.directory == tmp_path / "there" / "base"
    (tmp_path / "there" / "base").rename(tmp_path / "elsewhere" / "base")
    assert replan(of, record).source.directory == tmp_path / "elsewhere" / "base", "the path as it was given"
    (tmp_path / "elsewhere" / "base").rename(tmp_path / "gone")
    with pytest.raises(UserError, match=rf"^model.path: no such directory: {tmp_path}/there/base$"):
        replan(of, record)
    save_checkpoint(FAMILIES["roberta"](), tmp_path / "there" / "base")
    with pytest.raises(UserError, match=rf"^model.path: {tmp_path}/there/base has changed since the run was trained"):
        replan(of, record)
