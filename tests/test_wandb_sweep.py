"""The example W&B sweep: the commands of W&B's agent compose, and train as the agent's run."""

import json
import os
import queue
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose

from loralab.config.compose import configs
from loralab.config.schema import Config, from_hydra
from tests.small_runs import SMALL

ROOT = Path(__file__).resolve().parents[1]
SWEEP: dict[str, Any] = yaml.safe_load((ROOT / "docs" / "wandb_sweep.yaml").read_text())

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:wandb")


def drawn(parameter: dict[str, Any]) -> list[Any]:
    """The values that W&B may draw: all, or the ends and the middle of a range."""
    if "values" in parameter:
        return list(parameter["values"])
    assert parameter["distribution"] == "log_uniform_values"
    low, high = parameter["min"], parameter["max"]
    return [low, (low * high) ** 0.5, high]


def draws() -> list[dict[str, Any]]:
    """The smallest set of runs that contains every value of every parameter."""
    axes = {key: drawn(parameter) for key, parameter in SWEEP["parameters"].items()}
    longest = max(map(len, axes.values()))
    return [{key: values[at % len(values)] for key, values in axes.items()} for at in range(longest)]


class Started:
    """Replaces the agent's process and stores its command."""

    def __init__(self, command: list[str], **_: Any) -> None:
        self.command = command


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """W&B's agent of this sweep, without a server: the test passes the commands."""
    from wandb.wandb_agent import Agent

    for name, value in {"WANDB_DIR": str(tmp_path), "WANDB_SWEEP_ID": "sweep123", "WANDB_MODE": "offline"}.items():
        monkeypatch.setenv(name, value)
    for name in ("WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH"):  # the agent sets them; restored at the end
        monkeypatch.setenv(name, "")
    made = Agent(api=None, queue=queue.Queue(), sweep_id="sweep123")
    made._sweep_command = list(SWEEP["command"])
    return made


def start(agent: Any, values: dict[str, Any], *, program: str = SWEEP["program"]) -> Any:
    """The process that the agent would start for a run with these values."""
    arguments = {key: {"value": value} for key, value in values.items()}
    agent._command_run({"run_id": "agentsrun", "program": program, "args": arguments})
    return agent._run_processes["agentsrun"]


def composed(command: list[str]) -> Config:
    """The config that Hydra composes from a command's overrides."""
    assert command[:3] == ["/usr/bin/env", "python", "train.py"]
    with configs():
        return from_hydra(compose("config", command[3:]))


def test_every_command_of_the_sweep_composes_to_what_was_drawn(agent: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wandb.wandb_agent.AgentProcess", Started)
    seen = set()
    for values in draws():
        config = composed(start(agent, values).command)
        assert (config.model.name, config.task.name, config.train.eval_every) == ("minilm", "rotten_tomatoes", 80)
        told = {"optim.lr": config.optim.lr, "lora.ratio": config.lora.ratio, "seed": config.seed}
        assert {**told, "lora.targets": f"[{','.join(config.lora.targets)}]"} == values
        seen.add(str(config))
    assert len(seen) == len(draws()) == len(SWEEP["parameters"]["lora.ratio"]["values"])


def test_lists_numbers_and_switches_need_no_quotes_of_ours(agent: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wandb.wandb_agent.AgentProcess", Started)
    values = {"lora.targets": ["q", "k"], "optim.lr": 1e-05, "train.bucketing": False, "optim.clip": "null"}
    config = composed(start(agent, values).command)
    assert (config.lora.targets, config.optim.lr, config.train.bucketing) == (["q", "k"], 1e-5, False)
    assert config.optim.clip is None


@pytest.mark.slow
def test_a_run_that_the_agent_starts_is_the_agents_in_wandb_and_ours_on_disk(
    agent: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    store = tmp_path / "store"
    small = [override for override in SMALL if not override.startswith("tracker=")]
    agent._sweep_command = [
        *SWEEP["command"][:-1],
        *small,
        f"store={store}",
        "tracker.group=mine",
        SWEEP["command"][-1],
    ]
    process = start(agent, {"optim.lr": 1e-3, "lora.ratio": 4, "seed": 1}, program=str(ROOT / "train.py"))
    assert process.wait() == 0

    (record,) = [json.loads(path.read_text()) for path in store.glob("runs/*/record.json")]
    assert (record["config"]["lora"]["ratio"], record["config"]["seed"]) == (4, 1)
    (folder,) = store.glob("wandb/offline-run-*")
    assert folder.name.endswith("-agentsrun")
    lines = [json.loads(line) for line in next(store.glob("runs/*/metrics.jsonl")).read_text().splitlines()]
    logged = {f"{line['split']}/{name}" for line in lines for name in line["values"]}
    assert SWEEP["metric"]["name"] in logged
