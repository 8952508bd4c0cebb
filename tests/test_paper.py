"""Studies at paper scale: grids and settings are the printed ones, and the smoke sizes train offline."""

import functools
import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from loralab.config.overrides import to_override
from loralab.config.schema import from_hydra
from loralab.sweeps.study import open_study, studies
from tests.small_runs import CONF
from tests.small_studies import train

ROOT = CONF.parent
PAPER = [name for name in studies() if name.startswith("paper/")]

# The settings of all jobs, as the set of each key's values in the study; LoRA+ on RoBERTa-base first.
REFERENCE: dict[str, list[Any]] = {
    "model.name": ["roberta"],
    "model.dropout": [0.1],
    "task.name": ["mnli", "qnli", "qqp", "sst2"],
    "task.train_rows": [None],
    "method.name": ["lora"],
    "lora.rank": [8],
    "lora.alpha": [8],
    "lora.targets": [["q", "v"]],
    "lora.init": ["B"],
    "lora.init_dist": ["kaiming"],
    "lora.scaling": ["alpha/r"],
    "lora.dropout": [0.1],
    "lora.bias": ["none"],
    "lora.rank_pattern": [{}],
    "optim.betas": [[0.9, 0.99]],
    "optim.eps": [1e-8],
    "optim.weight_decay": [0],
    "optim.schedule": ["linear"],
    "optim.warmup": [0],
    "optim.head_lr": [None],
    "optim.clip": [1],
    "optim.groups": ["reference"],
    "train.epochs": [3, 10],
    "train.steps": [None],
    "train.batch_size": [32],
    "train.max_length": [128],
    "train.bucketing": [False],
    "train.eval_every": [None],
    "train.eval_first": [False],
    "train.precision": ["fp16"],
    "seed": [0, 1, 2],
}
GPT2_MAPS = ["c_attn", "c_proj", "c_fc"]
SETTINGS: dict[str, dict[str, list[Any]]] = {
    "paper/roberta_grid": REFERENCE,
    "paper/roberta_fp32": REFERENCE | {"train.precision": ["fp32"]},
    "paper/roberta_rank": REFERENCE | {"lora.rank": [4, 16], "lora.alpha": [4, 16]},
    "paper/roberta_init": REFERENCE | {"lora.init": ["A", "B"]},
    "paper/roberta_speed": REFERENCE
    | {"task.name": ["mnli"], "train.epochs": [3], "train.eval_every": [500], "lora.ratio": [1, 16]},
    "paper/gpt2_grid": REFERENCE | {"model.name": ["gpt2"], "lora.targets": [GPT2_MAPS]},
    "paper/released": REFERENCE
    | {
        "model.name": ["gpt2", "roberta"],
        "task.name": ["mnli"],
        "lora.targets": [GPT2_MAPS, ["q", "v"]],
        "lora.init": ["A", "B"],
        "train.epochs": [3],
        "train.eval_every": [500],
        "seed": [1],
    },
    "paper/llama_mnli": REFERENCE
    | {
        "model.name": ["llama_7b"],
        "model.dropout": [0],
        "task.name": ["mnli"],
        "lora.alpha": [16],
        "lora.targets": [["all"]],
        "optim.betas": [[0.9, 0.999]],
        "optim.eps": [1e-6],
        "optim.schedule": ["constant"],
        "train.epochs": [1],
        "train.batch_size": [16],
        "train.precision": ["bf16"],
        "seed": [0, 1],
    },
    "paper/lora_table9": REFERENCE
    | {
        "task.name": ["cola", "mnli", "mrpc", "qnli", "qqp", "rte", "sst2", "stsb"],
        "lora.ratio": [1],
        "lora.init": ["A"],
        "lora.dropout": [0],
        "optim.betas": [[0.9, 0.999]],
        "optim.weight_decay": [0.1],
        "optim.warmup": [0.06],
        "optim.groups": ["roles"],
        "train.epochs": [25, 30, 40, 60, 80],
        "train.batch_size": [16, 32],
        "train.max_length": [512],
        "train.precision": ["fp32"],
        "seed": [0, 1, 2, 3, 4],
    },
    "paper/width_roberta": REFERENCE  # `width` on a GPU, in no paper
    | {
        "model.dropout": [0],
        "model.widen": [1, 2, 4, 8],
        "task.name": ["mnli"],
        "method.name": ["head", "lora"],
        "lora.ratio": [0.25, 1, 4, 16, 64],
        "lora.init": ["A"],
        "lora.dropout": [0],
        "optim.betas": [[0.9, 0.999]],
        "optim.eps": [1e-12],
        "optim.warmup": [0.06],
        "optim.head_lr": [1.25e-4, 2.5e-4, 5e-4, 1e-3, 4e-3, 1.6e-2, 6.4e-2, 2.56e-1],
        "optim.clip": [None],
        "optim.groups": ["roles"],
        "train.epochs": [None],
        "train.steps": [1000],
        "train.bucketing": [True],
        "train.eval_every": [0.1],
        "train.eval_first": [True],
        "train.precision": ["fp32"],
        "seed": [0, 1],
    },
}
RUNS = {
    "paper/roberta_grid": 4 * 7 * 6 * 3,
    "paper/roberta_fp32": 4 * 7 * 6 * 3,
    "paper/roberta_rank": 2 * 4 * 7 * 6 * 3,
    "paper/roberta_init": 2 * 4 * 7 * 6 * 3,
    "paper/roberta_speed": 2 * 7 * 3,
    "paper/gpt2_grid": 4 * 7 * 6 * 3,
    "paper/released": 2,
    "paper/llama_mnli": 5 * 7 * 2,
    "paper/lora_table9": 8 * 5,
    "paper/width_roberta": (4 * 5 + 1) * 5 * 2,
}
FRESH = {"paper/width_roberta": (4 * 5 + 1) * 10}  # runs of a second stage
SHOWS = {
    "paper/roberta_grid": "LoRA+, Figures 3 and 8:",
    "paper/roberta_fp32": "LoRA+, Figures 10-13 in part:",
    "paper/roberta_rank": "LoRA+, Figures 14-16:",
    "paper/roberta_init": "LoRA+, Figures 17 and 18:",
    "paper/roberta_speed": "LoRA+, Figure 7:",
    "paper/gpt2_grid": "LoRA+, Figures 4 and 9:",
    "paper/released": "LoRA+, the points of Figures 3 and 4",
    "paper/llama_mnli": "LoRA+, Figure 5, its MNLI half:",
    "paper/lora_table9": "LoRA, Table 9",
    "paper/width_roberta": "LoRA+, Theorem 1:",
}
# Settings that the papers do not print: the text on each one's line in the file.
NOT_PRINTED = {
    "paper/roberta_grid": ["weight_decay:", "clip:", "eval_every:", "seed:"],
    "paper/roberta_fp32": ["# params:"],
    "paper/roberta_rank": ["params:", "lora.rank,lora.alpha:"],
    "paper/roberta_init": ["params:", "# arms:"],
    "paper/roberta_speed": ["eval_every:", "optim.lr:"],
    "paper/gpt2_grid": ["# arms:"],
    "paper/llama_mnli": ["init:", "weight_decay:", "warmup:", "clip:", "max_length:", "eval_every:"],
    "paper/lora_table9": ["dropout:", "betas:", "eps:", "weight_decay:", "clip:", "precision:", "seed:"],
}
LR_A = (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 4e-4, 8e-4)
LR_B = (1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 4e-3)
LLAMA = (1e-6, 5e-6, 1e-5, 5e-5, 1e-4, 2e-4, 4e-4)
PAIRS = {
    **dict.fromkeys([name for name in RUNS if name.endswith(("grid", "fp32", "rank", "init"))], (LR_A, LR_B)),
    "paper/llama_mnli": (LLAMA[:5], LLAMA),
}
TABLE_9 = {  # task: batch, epochs, rate
    "mnli": (16, 30, 5e-4), "sst2": (16, 60, 5e-4), "mrpc": (16, 30, 4e-4), "cola": (32, 80, 4e-4),
    "qnli": (32, 25, 4e-4), "qqp": (16, 25, 5e-4), "rte": (32, 80, 5e-4), "stsb": (16, 40, 4e-4),
}  # fmt: skip


LISTED = ("optim.lr", "lora.ratio", "seed")  # put into a job's settings without composing them again


@functools.cache
def jobs(name: str) -> tuple[dict[str, Any], ...]:
    """The config of every job by dotted key, without the hub. The first and the last job are composed completely."""
    keys = {*itertools.chain(*SETTINGS.values()), "model.hub", "optim.lr", "lora.ratio"}
    with open_study(name) as study:
        assert study.name == name

        @functools.cache
        def composed(job: tuple[str, ...]) -> dict[str, Any]:
            settings = study.composer.settings(job)
            found = {key: OmegaConf.select(settings, key) for key in keys}
            return {k: OmegaConf.to_object(v) if OmegaConf.is_config(v) else v for k, v in found.items()}

        def quickly(job: tuple[str, ...]) -> dict[str, Any]:
            listed = {key: value for key, value in (text.split("=") for text in job) if key in LISTED}
            found = composed(tuple(text for text in job if text.partition("=")[0] not in listed))
            return found | {key: int(value) if key == "seed" else float(value) for key, value in listed.items()}

        first, last = study.grid[0], study.grid[-1]
        from_hydra(study.composer.settings(first))  # within their ranges; all jobs have these types
        found = tuple(quickly(job) for job in study.grid)
        assert (found[0], found[-1]) == (composed(first), composed(last))
    return found


def text(name: str) -> str:
    return (ROOT / "sweeps" / f"{name}.yaml").read_text()


def pair(job: dict[str, Any]) -> tuple[str, str]:
    """lr_A and lr_B to twelve digits."""
    return f"{job['optim.lr']:.12g}", f"{job['optim.lr'] * job['lora.ratio']:.12g}"


def test_every_study_at_paper_scale_is_checked_here() -> None:
    assert PAPER == sorted(SETTINGS) == sorted(RUNS) == sorted(SHOWS)


@pytest.mark.parametrize("name", PAPER)
def test_the_grid_has_the_printed_number_of_runs_and_every_run_the_printed_settings(name: str) -> None:
    assert len(jobs(name)) == RUNS[name] == len({json.dumps(job, sort_keys=True) for job in jobs(name)})
    for key, values in SETTINGS[name].items():
        assert {to_override(job[key]) for job in jobs(name)} == set(map(to_override, values)), key


@pytest.mark.parametrize("name", PAIRS)
def test_every_pair_of_printed_rates_is_there_in_twelve_digits(name: str) -> None:
    pairs = [pair(job) for job in jobs(name)]
    printed = [(f"{a:.12g}", f"{b:.12g}") for a, b in itertools.product(*PAIRS[name])]
    assert set(pairs) == set(printed)
    assert {pairs.count(each) for each in printed} == {RUNS[name] // len(printed)}, "each as often as any other"


def test_epochs_batch_and_rate_are_those_of_the_task() -> None:
    for name in ("paper/roberta_grid", "paper/roberta_fp32", "paper/roberta_rank", "paper/roberta_init"):
        assert all(job["train.epochs"] == (10 if job["task.name"] == "sst2" else 3) for job in jobs(name))
    found = [
        (j["task.name"], (j["train.batch_size"], j["train.epochs"], j["optim.lr"])) for j in jobs("paper/lora_table9")
    ]
    assert dict(found) == TABLE_9 and {found.count(row) for row in found} == {5}


def test_rank_and_alpha_go_together_and_each_ratio_has_the_same_rates() -> None:
    assert all(job["lora.rank"] == job["lora.alpha"] for job in jobs("paper/roberta_rank"))
    rates = {(job["lora.ratio"], job["optim.lr"]) for job in jobs("paper/roberta_speed")}
    assert rates == set(itertools.product((1, 16), LR_A))


def test_the_released_points_are_the_scripts_own_and_cells_of_the_grids() -> None:
    points = {j["model.name"]: j for j in jobs("paper/released")}
    found = {
        name: (job["optim.lr"], job["lora.ratio"], job["lora.init"], job["lora.targets"])
        for name, job in points.items()
    }
    assert found == {"roberta": (5e-5, 80, "A", ["q", "v"]), "gpt2": (2e-4, 10, "B", GPT2_MAPS)}
    assert pair(points["roberta"]) in map(pair, jobs("paper/roberta_grid"))
    assert pair(points["gpt2"]) in map(pair, jobs("paper/gpt2_grid"))


def test_one_half_of_the_study_of_inits_is_the_grid_again_and_so_trained_once() -> None:
    again = [job for job in jobs("paper/roberta_init") if job["lora.init"] == "B"]
    key = functools.partial(json.dumps, sort_keys=True)
    assert sorted(map(key, again)) == sorted(map(key, jobs("paper/roberta_grid")))


@pytest.mark.parametrize(
    ("name", "family", "maps"),
    [("roberta_grid", "roberta", 2), ("gpt2_grid", "gpt2", 4), ("llama_mnli", "llama", 7)],
)
def test_the_targets_are_whole_maps_of_the_backbone(name: str, family: str, maps: int) -> None:
    from loralab.backbones.families import linear_maps
    from loralab.methods.targets import adaptable, select
    from tests.families import FAMILIES

    model = FAMILIES[family]()
    head = ["score"] if family != "roberta" else ["classifier"]
    (targets,) = {tuple(job["lora.targets"]) for job in jobs(f"paper/{name}")}
    chosen = select(targets, linear_maps(model), adaptable(model, head))
    assert len(chosen) == maps * model.config.num_hidden_layers and {target.rows for target in chosen} == {None}


def test_a_task_can_be_asked_for_by_itself() -> None:
    with open_study("paper/roberta_fp32", ("task=sst2",)) as study:
        assert len(study.grid) == 126
        assert {study.composer.settings(job).train.epochs for job in study.grid} == {10}


@pytest.mark.parametrize("name", PAPER)
def test_the_comment_names_the_figure_or_the_table_first(name: str) -> None:
    package, first, *_ = text(name).splitlines()
    assert package == "# @package _global_" and first.startswith(f"# {SHOWS[name]}"), first
    assert "differ" in text(name), "the known differences, or the file that lists them"


def test_what_is_not_printed_is_said_where_it_stands() -> None:
    for name, place in [(study, place) for study, places in NOT_PRINTED.items() for place in places]:
        lines = [line.strip() for line in text(name).splitlines() if line.strip().startswith(place)]
        assert lines and "not printed" in " ".join(lines), (name, place)


@pytest.mark.parametrize("name", PAPER)
def test_a_study_tells_its_claim_metric_command_analysis_and_what_it_costs(name: str) -> None:
    with open_study(name) as opened:
        study = opened.spec.study
    assert [key for key in study if key != "margin"] == ["claim", "metric", "command", "cost", "analysis"]
    assert study["command"] == f"python train.py sweeps={name}"
    assert study["analysis"] in ("lr_grid", "convergence", "width", "none")
    pattern = r"(\d+) runs, (\d+) million examples: about (\d+) GPU hours? at (\d+) examples a second"
    found = re.fullmatch(rf"{pattern} \(assumed, not measured\)", study["cost"])
    assert found, study["cost"]
    runs, millions, hours, rate = map(int, found.groups())
    every = RUNS[name] + FRESH.get(name, 0)
    examples = sum(map(trained, jobs(name))) * every / RUNS[name]
    assert (runs, millions) == (every, round(examples / 1e6))
    assert hours == round(examples / rate / 3600)


def trained(job: dict[str, Any]) -> int:
    """The number of examples that a run trains on."""
    if job["train.steps"] is not None:
        return int(job["train.steps"] * job["train.batch_size"])
    return int(rows(job["task.name"]) * job["train.epochs"])


def rows(task: str) -> int:
    """Training rows, as in the task's file."""
    found = re.search(r": ([\d,]+)/", (CONF / "task" / f"{task}.yaml").read_text())
    assert found
    return int(found[1].replace(",", ""))


@pytest.mark.slow
@pytest.mark.parametrize("name", PAPER)
def test_the_smoke_size_trains_offline_with_the_studys_own_optimizer(name: str, tmp_path: Path) -> None:
    settings = ("smoke=true", "tracker=none", "train.device=cpu", "train.threads=1", "task.eval_rows=64")
    with open_study(name, settings, store=tmp_path) as study:
        train(study)
        cells = study.cells()
    records = [json.loads(path.read_text()) for path in tmp_path.glob("runs/*/record.json")]
    assert 2 <= len(records) == len(cells) <= 16, "a few cells"
    for record in records:
        config, rates = record["config"], {group["name"]: group["lr"] for group in record["groups"]}
        assert (record["status"], record["steps"], config["model"]["name"]) == ("success", 4, "tiny")
        assert [config["optim"]["groups"]] == SETTINGS[name]["optim.groups"]
        assert config["optim"]["betas"] == SETTINGS[name]["optim.betas"][0]
        if config["method"]["name"] == "head":
            continue  # without A and B
        a, b = ("groupA", "groupB") if config["optim"]["groups"] == "reference" else ("A", "B")
        assert rates[b] == pytest.approx(rates[a] * config["lora"]["ratio"], rel=1e-12)
