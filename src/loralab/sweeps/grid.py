"""A study's grid -> the list of its jobs, each a tuple of Hydra overrides. Pure: nothing is composed, read or run.

runs = union over the arms of product(params, the swept arguments of the command line, the arm's own axes)
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, product
from typing import Any

from loralab.config.overrides import check_size, name_of, read, settings, to_override, values_of
from loralab.errors import UserError
from loralab.sweeps.spec import Axis, Spec

__all__ = ["Spec", "axes", "confirm_jobs", "fresh_axes", "jobs"]

Job = tuple[str, ...]

# Confirming on the values that were selected on would confirm nothing.
_SEEDS = ("seed", "init_seed", "data_seed")


def jobs(spec: Spec, arguments: Sequence[str], *, smoke: bool = False) -> list[Job]:
    """The jobs of the grid (of a study's first stage), params outermost, arms in their order, each job once.

    arguments: the command line's overrides, which go first into every job. One whose key is
      - no axis: is passed on as it is; where it lists values, it is one more axis of every run;
      - an axis: takes its place, in params and in each arm (an arm without it gets it too);
      - one of several that vary together: keeps the rows that have its values;
      - a key that the arms differ in (every arm has one value of it): keeps the arms with this value.
    Overrides of Hydra's own settings, `+sweeps=` and `~key` are passed on. smoke: the same is done first with what the
    file says under `smoke`, but for the keys that the command line sets.
    """
    found = _enumerated(_grid(spec, arguments, smoke))
    _check_fresh(spec, found)
    return found


def confirm_jobs(
    spec: Spec, arguments: Sequence[str], selected: Sequence[Mapping[str, Any]], *, smoke: bool = False
) -> list[Job]:
    """The jobs of the second stage: each selected configuration times the product of `confirm.params`.

    selected: values by axis, as the first stage's `axes` names them; None or NaN for an axis that an arm does not
    have. All else of a job is what the first stage gave it. An argument for an axis of the first stage says what is
    selected among, so `seed=0` selects by one seed, and the fresh seeds stay as the file has them; an argument for a
    key that only `confirm.params` has takes its place there. In a smoke run an axis of fresh values keeps its first
    ones, as many as `smoke` lists for it.
    """
    fresh = fresh_axes(spec, arguments, smoke=smoke)
    names = {name for axis in fresh for name in axis.names}
    first_stage = jobs(spec, arguments, smoke=smoke)
    check_size(len(selected) * _product(axis.rows for axis in fresh), "the product of the second stage's axes")
    found: dict[frozenset[str], Job] = {}
    for chosen in selected:
        kept = dict.fromkeys(
            tuple(override for override in job if name_of(read(override)) not in names)
            for job in first_stage
            if _agrees(settings(job), chosen, leaving_out=names)
        )
        assert len(kept) == 1, f"{len(kept)} configurations of the grid are {dict(chosen)}"
        (rest,) = kept
        for rows in product(*(axis.texts() for axis in fresh)):
            job = (*rest, *chain.from_iterable(rows))
            found.setdefault(frozenset(job), job)
    return list(found.values())


def fresh_axes(spec: Spec, arguments: Sequence[str], *, smoke: bool) -> tuple[Axis, ...]:
    """The axes of fresh values in the second stage, as `confirm_jobs` takes them."""
    assert spec.confirm is not None, "a study without a second stage"
    fresh = tuple(_shortened(axis, spec.smoke) if smoke else axis for axis in spec.confirm.params)
    of_first_stage = {name for axis in chain(spec.params, *spec.arms) for name in axis.names}
    for argument in _last_of_each(arguments):
        override = read(argument)
        name = name_of(override)
        if name not in of_first_stage and any(name in axis.names for axis in fresh):
            fresh = _put(fresh, Axis.single(override.get_key_element(), values_of(override, name)), name)
    return fresh


def axes(jobs: Sequence[Job]) -> dict[str, list[Any]]:
    """The keys that vary among the jobs, and their values, in the order in which they are met.

    A key that some of the jobs do not have varies too, even where it has one value.
    """
    values: dict[str, dict[str, Any]] = {}
    count: dict[str, int] = {}
    for job in jobs:
        for name, value in settings(job).items():
            values.setdefault(name, {}).setdefault(to_override(value), value)
            count[name] = count.get(name, 0) + 1
    return {name: list(of.values()) for name, of in values.items() if len(of) > 1 or count[name] < len(jobs)}


@dataclass(frozen=True)
class _Grid:
    """A grid whose axes are taking their places; a job has its overrides in the order of the first three fields.

    arguments: an axis, or one override that is passed on; differing: the keys that the file's arms differ by.
    """

    arguments: tuple[Axis | str, ...]
    params: tuple[Axis, ...]
    arms: tuple[tuple[Axis, ...], ...]
    differing: frozenset[str]

    def has(self, names: Sequence[str]) -> bool:
        return any(axis.meets(names) for axis in chain(self.params, *self.arms))

    def placed(self, new: Axis, where: str) -> "_Grid":
        """With `new` where the axes of its keys were."""
        in_params = any(axis.meets(new.names) for axis in self.params)
        in_arms = any(axis.meets(new.names) for axis in chain(*self.arms))
        if in_params and in_arms:
            raise UserError(f"{where}: some of these keys are in params, others in arms; write them apart")
        if in_params:
            return replace(self, params=_put(self.params, new, where))
        return replace(self, arms=_put_in_arms(self.arms, new, self.differing, where))


def _grid(spec: Spec, arguments: Sequence[str], smoke: bool) -> _Grid:
    """The spec's grid after smoke and command line have had their say."""
    arms = spec.arms or ((),)
    grid = _Grid((), spec.params, arms, frozenset(_differing(arms)))
    arguments = _last_of_each(arguments)
    given = {name_of(read(argument)) for argument in arguments}
    for axis in spec.smoke if smoke else ():
        if given >= set(axis.names):
            continue
        if grid.has(axis.names):
            grid = grid.placed(axis, f"hydra.sweeper.smoke.{','.join(axis.keys)}")
        else:
            grid = replace(grid, params=(*grid.params, axis))
    for argument in arguments:
        override = read(argument)
        name = name_of(override)
        if name == "sweeps" and override.is_sweep_override():
            raise UserError(f"sweeps: got {override.get_value_string()}; a command runs one study")
        if override.is_delete() and grid.has([name]):
            raise UserError(f"{argument}: {name} is an axis of the sweep; it is pinned by {name}=VALUE")
        passed_on = override.is_delete() or override.is_hydra_override() or name == "sweeps"
        if passed_on or not (grid.has([name]) or override.is_sweep_override()):
            grid = replace(grid, arguments=(*grid.arguments, argument))
            continue
        axis = Axis.single(override.get_key_element(), values_of(override, name))
        grid = grid.placed(axis, name) if grid.has([name]) else replace(grid, arguments=(*grid.arguments, axis))
    return grid


def _enumerated(grid: _Grid) -> list[Job]:
    lists = [axis.rows for axis in (*grid.params, *grid.arguments) if isinstance(axis, Axis)]
    arms = sum(_product(axis.rows for axis in arm) for arm in grid.arms)
    check_size(_product(lists) * arms, "the product of the sweep's axes")
    found: dict[frozenset[str], Job] = {}
    arguments = [[(each,)] if isinstance(each, str) else each.texts() for each in grid.arguments]
    for outer in product(*(axis.texts() for axis in grid.params)):
        for given in product(*arguments):
            for arm in grid.arms:
                for inner in product(*(axis.texts() for axis in arm)):
                    job = tuple(chain.from_iterable((*given, *outer, *inner)))
                    found.setdefault(frozenset(job), job)
    return list(found.values())


def _product(lists: Iterable[Sequence[Any]]) -> int:
    return math.prod(map(len, lists))


def _last_of_each(arguments: Sequence[str]) -> list[str]:
    """Of the arguments for one key the last, as Hydra's own sweeper has it."""
    return list({name_of(read(argument)): argument for argument in arguments}.values())


def _put(there: tuple[Axis, ...], new: Axis, where: str) -> tuple[Axis, ...]:
    """`new` in the place of the axes of its keys; where one of these has more keys than `new`, its rows are kept."""
    wider = [axis for axis in there if axis.meets(new.names) and not set(axis.names) <= set(new.names)]
    if wider:
        (name,) = _alone(new, where)
        others = ", ".join(other for other in wider[0].names if other != name)
        _check_all_are_there(new, wider, where, f"it varies together with {others}, and has")
        return tuple(axis.narrowed(name, new) if axis in wider else axis for axis in there)
    met = [axis for axis in there if axis.meets(new.names)]
    return tuple(new if axis is met[0] else axis for axis in there if axis not in met[1:])


def _put_in_arms(
    arms: tuple[tuple[Axis, ...], ...], new: Axis, differing: frozenset[str], where: str
) -> tuple[tuple[Axis, ...], ...]:
    """`new` in each arm; where the arms differ in its key, arms are kept or left out, as are rows of several keys."""
    met = [axis for axis in chain(*arms) if axis.meets(new.names)]
    narrowing = bool(differing & set(new.names))
    wider = [axis for axis in met if narrowing or not set(axis.names) <= set(new.names)]
    if wider:
        _alone(new, where)
        _check_all_are_there(new, met, where, "the sweep's arms have")
    found = []
    for arm in arms:
        axes = [axis for axis in arm if axis.meets(new.names)]
        if not axes:
            found.append((*arm, new))
        elif any(axis in wider for axis in axes):
            narrowed = tuple(axis.narrowed(new.names[0], new) for axis in arm)
            found += [narrowed] if all(axis.rows for axis in narrowed) else []
        else:
            found.append(_put(arm, new, where))
    return tuple(found)


def _alone(new: Axis, where: str) -> tuple[str, ...]:
    if len(new.names) > 1:
        raise UserError(
            f"{where}: only a part of the sweep's axis, or what its arms differ by; give each key by itself"
        )
    return new.names


def _check_all_are_there(new: Axis, there: Sequence[Axis], where: str, says: str) -> None:
    """A value that no row has would be left out without a word."""
    (name,) = new.names
    known = dict.fromkeys(text for axis in there for text in axis.column(name))
    for text in new.column(name):
        if text not in known:
            raise UserError(f"{where}: got {text}; {says} {', '.join(known)}")


def _differing(arms: Sequence[Sequence[Axis]]) -> list[str]:
    """The keys of which every arm has one value, and not all the same."""
    names = dict.fromkeys(name for axis in chain(*arms) for name in axis.names)
    found = []
    for name in names:
        values = [{text for axis in arm for text in axis.column(name)} for arm in arms]
        if all(len(of) == 1 for of in values) and len(set().union(*values)) > 1:
            found.append(name)
    return found


def _shortened(axis: Axis, smoke: Sequence[Axis]) -> Axis:
    counts = [len(small.rows) for small in smoke if small.meets(axis.names)]
    return replace(axis, rows=axis.rows[: min(counts)]) if counts else axis


def _agrees(job: Mapping[str, Any], chosen: Mapping[str, Any], *, leaving_out: set[str]) -> bool:
    for name, value in chosen.items():
        plain = value.item() if hasattr(value, "item") else value  # numpy's, from a table
        if name in leaving_out:
            continue
        if name not in job:
            if plain is not None and plain == plain:
                return False
        elif to_override(job[name]) != to_override(plain):
            return False
    return True


def _check_fresh(spec: Spec, first_stage: Sequence[Job]) -> None:
    """UserError where a seed of the second stage is one of the first."""
    confirm = () if spec.confirm is None else spec.confirm.params
    fresh = {name: set(axis.column(name)) for axis in confirm for name in axis.names if name in _SEEDS}
    for job in first_stage if fresh else ():
        for name, value in settings(job).items():
            if to_override(value) in fresh.get(name, ()):
                raise UserError(
                    f"{name}: got {to_override(value)} for selection, which is among "
                    f"hydra.sweeper.confirm.params.{name}; the selected runs are confirmed with fresh seeds"
                )
