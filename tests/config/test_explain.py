"""Tests of user's mistakes: one line with key, value and what is allowed, exit status 2, no traceback."""

import subprocess
import sys
from pathlib import Path

import hydra
import pytest
from omegaconf.errors import ConfigKeyError

from loralab.cli.hydra_main import launch, train
from loralab.config.explain import explain
from loralab.errors import UserError
from tests.small_runs import CONF, SMALL

ROOT = Path(__file__).resolve().parents[2]

MISTAKES = {
    "lora.rnk=4": "lora.rnk: no such key; lora has rank, alpha, ratio, targets, init, init_dist, scaling, dropout, "
    "bias, rank_pattern, dora; did you mean lora.rank?",
    "model=robrta": "model: got 'robrta'; allowed: bert_width_128, ",
    "optm.lr=1": "optm.lr: no such key; the configuration has ",
    "+sweeps=nothing": "sweeps: got 'nothing'; allowed: ",
    "+lora.foo=1": "lora.foo: no such key; lora has ",
    "modl=tiny": "modl: no such key; ",
    "lora.rank=abc": "lora.rank: got abc; it must be a whole number",
    "lora.rank=1.5": "lora.rank: got 1.5; it must be a whole number",
    "lora.rank=": "lora.rank: got nothing; it must be a whole number",
    "lora.rank=[1,2]": "lora.rank: got [1,2]; it must be a whole number",
    "train.bucketing=maybe": "train.bucketing: got maybe; it must be true or false",
    "optim.lr=fast": "optim.lr: got 'fast'; it must be a number above 0, or auto",
    "optim.lr=[1]": "optim.lr: got [1]; it must be a number above 0, or auto",
    "optim.lr=null": "optim.lr: got null; it must be a number above 0, or auto",
    "optim.lr=true": "optim.lr: got true; it must be a number above 0, or auto",
    "optim.lr=''": "optim.lr: got ''; it must be a number above 0, or auto",
    "model.rates=3": "model.rates: got 3; it must be a mapping, as model.rates={q:0.03}",
    "model.rates={q:x}": "model.rates.q: got x; it must be a number",
    "model.rates={qv:0.02}": "model.rates: got 'qv'; allowed: q, k, v, o, mlp, head; did you mean 'v'?",
    "model.rates.v=0": "model.rates.v: got 0.0; it must be a number above 0",
    "train.eval_every=often": "train.eval_every: got often; it must be a number or null",
    "model.name=null": "model.name: got null; it must be a string",
    "lora.rank=null": "lora.rank: got null; it must be a whole number",
    "store=null": "store: got null; it must be a string",
    "model.path=[a]": "model.path: got [a]; it must be a string or null",
    "lora=3": "lora: got 3; it must be set by its keys, as lora.KEY=VALUE",
    "lora.targets=q": "lora.targets: got q; it must be a list, as lora.targets=[q,v]",
    "optim.betas=[0.9,a]": "optim.betas: got [0.9,a]; it must be a list, as optim.betas=[0.9,0.999]",
    "lora.rank_pattern=3": "lora.rank_pattern: got 3; it must be a mapping, as lora.rank_pattern={v:16}",
    "lora.rank_pattern={v:x}": "lora.rank_pattern.v: got x; it must be a whole number",
    "lora.rank_pattern.v=x": "lora.rank_pattern.v: got x; it must be a whole number",
    "lora.rank=0": "lora.rank: got 0; it must be a number at least 1",
    "optim.lr=nan": "optim.lr: got nan; it must be a number above 0",
    "train.precision=bf61": "train.precision: got 'bf61'; allowed: auto, fp32, bf16, fp16; did you mean 'bf16'?",
    "lora.rank": "lora.rank: got no value; write KEY=VALUE, without spaces around =",
    "lora.targets=[q": "lora.targets: got [q, which Hydra cannot read; ",
    "~lora.rank": "lora.rank: cannot be removed with ~; give it a value",
    "+lora.rank=4": "lora.rank: is there already; write it without +",
    "seed=1,2": "seed: got 1,2; add -m to train one run for each, or write [1,2] for a list",
    "model=null": "a group (model, task, method, tracker) takes the name of one option, not null or a number",
    "model@foo=tiny": "model: is a group; set it as model=OPTION",
    "optim.lr=${optm.lr}": "optim.lr: Interpolation key 'optm.lr' not found",
    "hydra.foo=1": "hydra.foo: Hydra has no such key",
    "lora.targets=[qury]": "lora.targets: 'qury' matches no linear map of this backbone; roles: ",
    "task.metric=f2": "task.metric: ",
    "train.device=cuda:99": "train.device: got 'cuda:99'",
    "--resolve": "The --resolve flag can only be used in conjunction with --cfg or --help",
    "--cfg=nosuch": "argument --cfg/-c: invalid choice: 'nosuch'",
    "--config-name=nosuch": "Cannot find primary config 'nosuch'.",
    "seed=a\nb": "seed: got a b, which Hydra cannot read; ",
    "~data_seed": "data_seed: has no value; give it one",
    "~lora": "lora: has no value; give it one",
    "lora=[]": "lora: got []; it must be set by its keys, as lora.KEY=VALUE",
    "lora.rank_pattern=[]": "lora.rank_pattern: got []; it must be a mapping, as lora.rank_pattern={v:16}",
    "hydra.launcher.slots=abc": "hydra.launcher.slots: got abc; it must be a whole number or null",
    "hydra.launcher.slots_per_gpu=null": "hydra.launcher.slots_per_gpu: got null; it must be a whole number",
    "hydra.launcher.timeout=x": "hydra.launcher.timeout: got x; it must be a number or null",
    "hydra.launcher.slot=1": "hydra.launcher.slot: Hydra has no such key; did you mean hydra.launcher.slots?",
    "hydra.sweeper.dry_run=x": "hydra.sweeper.dry_run: got x; it must be true or false",
    "hydra.sweeper.arms={a:1}": "hydra.sweeper.arms: got {a:1}; it must be a list, as [a,b]",
    "hydra.mode=x": "hydra.mode: got x; it must be one of RUN, MULTIRUN",
    "hydra.run=3": "hydra.run: got 3; it must be set by its keys",
    "hydra.job.env_copy=[NO_SUCH]": "Hydra cannot compose these settings: KeyError: 'NO_SUCH'",
    "hydra.searchpath=[http://x]": "Hydra cannot compose these settings: ValueError: No config source registered",
    "model=${oc.decode:null}": "Hydra cannot compose these settings: ",
    "train.accumulate=4": "train.accumulate: no such key; ",
    "--cfg=job": "Only one of --run, --multirun, --cfg",
    "--frobnicate": "--frobnicate: no such flag; ",
    "--lora.rank=4": "--lora.rank: settings are written without dashes: lora.rank=4",
}


def command_line(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The exit status of train.py with these arguments, in this process."""
    main = hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(train)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")  # `launch` sets it; put back afterwards
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    with pytest.raises(SystemExit) as caught:
        launch(main)
    return int(caught.value.code or 0)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_status_two(
    mistake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    ours = () if mistake == "store=null" else (f"store={tmp_path}",)
    flags = ("-m",) if mistake == "--cfg=job" else ()
    assert command_line(monkeypatch, *SMALL, *ours, *flags, mistake) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith(f"error: {MISTAKES[mistake]}"), err
    assert err.count("\n") == 1


def test_in_a_multirun_the_line_comes_with_the_job_that_made_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert command_line(monkeypatch, *SMALL, f"store={tmp_path}", "-m", "lora.rank=0,-1") == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("error: lora.rank: got 0; it must be a number at least 1 (job 0: ")
    assert "lora.rank=0" in line


def test_a_real_process_says_the_same(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "train.py"), "lora.rank=0", f"store={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: lora.rank: got 0; it must be a number at least 1\n"


def test_who_asks_for_the_full_error_gets_the_traceback(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "train.py"), "lora.rnk=0", f"store={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={"HYDRA_FULL_ERROR": "1"})
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_a_bug_keeps_its_traceback() -> None:
    bug = RuntimeError("a bug")
    assert explain(bug) is None
    assert explain(ValueError("a bug")) is None
    assert explain(KeyError("a bug")) is None


def test_a_bug_while_a_mistake_is_handled_is_a_bug() -> None:
    bug = OSError("a bug")
    bug.__context__ = UserError("lora.rank: a mistake")
    assert explain(bug) is None


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")]
)
def test_too_little_memory_is_one_line(error: Exception) -> None:
    assert (explain(error) or "").startswith("there is not enough memory; lower train.batch_size, ")


def test_a_line_has_no_control_characters() -> None:
    assert explain(UserError("store: got '\x1b[31m' and\na line, é")) == r"store: got '\x1b[31m' and a line, é"


def test_hydras_and_omegaconfs_errors_without_a_key_are_one_line() -> None:
    line = explain(ConfigKeyError("several\n  lines"))
    assert line == "several lines"
