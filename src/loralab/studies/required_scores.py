"""The scores that a study's figure needs, and the tasks that do not have them: refused before any training."""

from collections.abc import Sequence

from loralab.errors import UserError
from loralab.studies.study_module import StudyModule, analysis_of
from loralab.studies.thinned_curves import is_curve
from loralab.sweeps.study import Study

__all__ = ["refuse_other_tasks", "refuse_without_scores"]


def refuse_other_tasks(study: Study, module: StudyModule, overrides: Sequence[str]) -> None:
    """Raises UserError if the overrides set a task that is not scored by what the figure needs.

    A study's own tasks have the scores, so its data is read only where the task is overridden.
    """
    if not any(map(_of_task, overrides)):
        return
    from loralab import tasks  # here, because a figure is drawn without torch
    from loralab.runs.plan import task_settings

    jobs = {tuple(filter(_of_task, job)): job for job in study.grid}  # one for each of the tasks
    configs = [study.planned(job).config.task for job in jobs.values()]
    settings = {(task_settings(task), task.metric) for task in configs}
    for one, metric in sorted(settings, key=repr):
        raw = tasks.choose(tasks.read(one), metric)
        needed = dict.fromkeys(name.partition("/")[2] for name in module.scores)
        lacking = [name for name in needed if name not in (*raw.metrics, "loss")]
        if lacking:
            raise UserError(
                f"task.name: the figure of study {study.name} needs {', '.join(lacking)}, and task={one.name} "
                f"({raw.kind}) is scored by {', '.join(raw.metrics)}; choose a study of losses, such as first, "
                f"or draw these scores in a copy of analysis/{analysis_of(study)}.py"
            )


def refuse_without_scores(study: Study, module: StudyModule, columns: Sequence[str]) -> None:
    """Raises UserError if the runs have scores, but not those that the figure needs."""
    lacking = [name for name in module.scores if name not in columns]
    there = [name for name in columns if name.startswith(("validation/", "test/")) and not is_curve(name)]
    if lacking and there:
        raise UserError(
            f"analysis/{analysis_of(study)}.py needs {', '.join(lacking)}, and the runs have {', '.join(there)}: their "
            "task has other metrics"
        )


def _of_task(override: str) -> bool:
    return override.lstrip("+").startswith(("task=", "task."))
