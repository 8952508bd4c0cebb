"""A finished run -> its plan, to build again what it started from."""

from typing import Any, cast

from omegaconf import OmegaConf

from loralab.config.schema import Config
from loralab.errors import UserError
from loralab.runs.plan import Plan, plan
from loralab.store.run_directory import RunDirectory

__all__ = ["replan"]


def replan(run: RunDirectory, record: dict[str, Any]) -> Plan:
    """The run's plan on this machine's CPU, in fp32, on exactly the weights and data that it was trained on.

    Raises UserError where they are not what they were.
    """
    config = cast(Config, OmegaConf.to_object(OmegaConf.merge(Config, OmegaConf.load(run.path / "config.yaml"))))
    if run.path.parent.name == "runs":  # an export keeps the store that it was trained in
        config.store = str(run.path.parent.parent)
    config.train.device, config.train.precision = "cpu", "fp32"
    weights, data = record["identity"]["model"]["weights"], record["identity"]["task"]["data"]
    if config.task.revision is not None:
        config.task.revision = data["data"]  # a commit, as of a hub model
    if config.model.hub is not None and config.model.path is None and config.model.package is None:
        config.model.revision = weights  # a hub model's identity is its commit
    planned = plan(config)
    if planned.source.identity != weights:
        raise UserError(
            f"{planned.source.key}: {planned.source.origin} has changed since the run was trained "
            f"(then {weights}, now {planned.source.identity}); bring the old weights back to use it"
        )
    if planned.identity["task"]["data"] != data:
        raise UserError(
            f"task.name: the data of {config.task.name} has changed since the run was trained (then "
            f"{', '.join(data.values())}, now {', '.join(planned.identity['task']['data'].values())}); bring the old "
            "data back to use it"
        )
    return planned
