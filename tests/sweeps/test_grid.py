"""The grid: counts are products, each job is valid and unique, and the command line pins the keys that it names."""

import random
from itertools import product
from typing import Any

import pytest
from hydra import compose
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser

from loralab.config.compose import configs
from loralab.config.overrides import settings, to_override
from loralab.config.schema import from_hydra
from loralab.errors import UserError
from loralab.sweeps.grid import Spec, axes, jobs
from tests.sweeps.grids import column, grid, ratio

# Plain multiruns


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["seed=0"],
        ["lora.ratio=1,4,16", "seed=0,1"],
        ["model=tiny", "lora.ratio=1,4", "tracker=none", "optim.lr=choice(1e-3,1e-2)", "+note=a"],
        ["seed=range(3)", "lora.targets=[q],[q,v]", "store='a b'", "++k=null,1"],
        ["task=trec,rotten_tomatoes", "seed=0", "seed=1,2"],
    ],
)
def test_a_plain_multirun_has_the_jobs_of_hydras_own_sweeper(arguments: list[str]) -> None:
    def typed(override: str) -> tuple[str, str]:
        key, value = override.split("=", 1)
        return key, to_override(OverridesParser.create().parse_override(f"key={value}").value())

    (theirs,) = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(arguments), None)
    ours = jobs(Spec.from_mapping({}), arguments)
    assert [set(map(typed, job)) for job in ours] == [set(map(typed, job)) for job in theirs]


def test_arguments_that_are_no_axis_are_passed_on_unchanged_and_first() -> None:
    passed = [
        "+sweeps=ratio",
        "optim.eps=1e-8",
        "~x",
        "tracker.group='a b'",
        "hydra.verbose=a,b",
        "hydra/launcher=pool",
    ]
    for job in jobs(ratio(), passed):
        assert list(job[: len(passed)]) == passed
        assert set(settings(job[len(passed) :])) >= {"task", "seed", "lora.rank", "lora.ratio"}


def test_a_key_with_signs_keeps_them() -> None:
    assert jobs(grid({"+note": [1, 2]}), ["++x=3,4", "+y=5"])[0] == ("++x=3", "+y=5", "+note=1")


# Products


@pytest.mark.parametrize("seed", range(60))
def test_jobs_are_the_union_over_arms_of_products_each_once_and_legal(seed: int) -> None:
    draw = random.Random(seed)
    pool = [0, 1, 2.5, 1e-5, True, False, None, "a", "1", "b c", ["q"], ["q", "v"], 1e-3, 4.0, "true"]

    def drawn(*keys: str) -> dict[str, Any]:
        return {key: draw.sample(pool, draw.randrange(1, 4)) for key in keys}

    params = drawn(*draw.sample(["a", "b.c", "d"], draw.randrange(4)))
    arms = [drawn(*draw.sample(["e", "f.g", "h"], draw.randrange(1, 4))) for _ in range(draw.randrange(3))]
    appended = drawn(*draw.sample(["x", "y.z"], draw.randrange(3)))
    arguments = [f"{key}={','.join(map(to_override, values))}" for key, values in appended.items()]
    found = jobs(grid(params, *arms), ["+sweeps=s", *arguments])

    def points(axes: dict[str, Any]) -> list[dict[str, Any]]:
        return [dict(zip(axes, row, strict=True)) for row in product(*axes.values())]

    wanted = {
        frozenset((key, to_override(value)) for key, value in {"sweeps": "s", **point, **more, **own}.items())
        for point in points(params)
        for more in points(appended)
        for arm in arms or [{}]
        for own in points(arm)
    }
    got = [frozenset((key, to_override(value)) for key, value in settings(job).items()) for job in found]
    assert set(got) == wanted and len(got) == len(wanted)
    for job in found:
        read = OverridesParser.create().parse_overrides(list(job))
        assert len({override.key_or_group for override in read}) == len(job)
        assert not any(override.is_sweep_override() for override in read)


def test_params_are_outermost_and_arms_in_their_order() -> None:
    found = jobs(grid({"seed": [1, 0], "task": "b,a"}, {"k": 2}, {"k": 1, "lr": [3, 4]}), ["z=7", "y=6,5"])
    assert len(found) == 2 * 2 * 2 * 3
    assert found[:4] == [
        ("z=7", "y=6", "seed=1", "task=b", "k=2"),
        ("z=7", "y=6", "seed=1", "task=b", "k=1", "lr=3"),
        ("z=7", "y=6", "seed=1", "task=b", "k=1", "lr=4"),
        ("z=7", "y=5", "seed=1", "task=b", "k=2"),
    ]
    assert found[6][2:4] == ("seed=1", "task=a") and found[12][2:4] == ("seed=0", "task=b")


def test_a_job_that_two_arms_have_is_there_once() -> None:
    assert jobs(grid({}, {"a": [1, 2], "b": 3}, {"b": 3.0, "a": [2.0, 4]}), []) == [
        ("a=1", "b=3"),
        ("a=2", "b=3"),
        ("b=3", "a=4"),
    ]
    assert jobs(grid({"a": [1, 1.0, 1e0]}), []) == [("a=1",)]


@pytest.mark.parametrize(
    ("spec", "arguments"),
    [
        (grid({"seed": "range(1000)", "init_seed": "range(1000)"}), []),
        (grid({"seed": "range(1000)"}, {"a": "range(100)"}, {"a": "range(100)"}), []),
        (grid({"seed": "range(1000)"}), ["init_seed=range(1000)"]),
    ],
)
def test_a_product_of_too_many_jobs_is_refused_before_it_is_made(spec: Spec, arguments: list[str]) -> None:
    with pytest.raises(UserError, match=r"^the product of the sweep's axes has .* values; a sweep has at most 100,000"):
        jobs(spec, arguments)


def test_pairs_vary_together() -> None:
    found = jobs(grid({"lora.rank,lora.alpha": [[1, 1], [8, 16]], "seed": [0, 1]}), [])
    assert found[0] == ("lora.rank=1", "lora.alpha=1", "seed=0") and len(found) == 4
    assert column(found, "lora.alpha") == [1, 16]


def test_every_job_of_a_study_composes() -> None:
    with configs():
        for job in jobs(ratio(), ["tracker=none", "task=trec", "seed=0"], smoke=True):
            config = from_hydra(compose("config", list(job)))
            assert (config.model.name, config.task.name, config.train.steps) == ("tiny", "trec", 4)
            assert config.lora.alpha == {1: 1, 8: 16}[config.lora.rank]
            assert (config.optim.clip is None) == (config.lora.ratio == 16)


# Overrides of the command line


def test_an_argument_for_an_axis_takes_its_place() -> None:
    assert len(jobs(ratio(), [])) == 2 * 3 * 2 * 12
    pinned = jobs(ratio(), ["seed=7"])
    assert len(pinned) == 2 * 2 * 12 and column(pinned, "seed") == [7]
    other = jobs(ratio(), ["task=imdb,trec", "seed=1e1"])
    assert column(other, "task") == ["imdb", "trec"] and column(other, "seed") == [10.0]


def test_an_argument_that_lists_values_is_one_more_axis() -> None:
    found = jobs(ratio(), ["lora.init=A,B"])
    assert len(found) == 2 * 2 * 3 * 2 * 12
    assert axes(found)["lora.init"] == ["A", "B"]


def test_an_argument_for_one_of_a_pair_keeps_its_rows() -> None:
    found = jobs(ratio(), ["lora.rank=8.0"])
    assert {(settings(job)["lora.rank"], settings(job)["lora.alpha"]) for job in found} == {(8, 16)}
    assert all(job.count("lora.rank=8") == 1 for job in found)
    assert len(jobs(ratio(), ["lora.alpha=16,1"])) == len(jobs(ratio(), []))


def test_an_argument_that_tells_the_arms_apart_keeps_its_arms() -> None:
    found = jobs(ratio(), ["lora.ratio=1.6e1"])
    assert len(found) == 2 * 3 * 2 * 6 and column(found, "lora.ratio") == [16]
    assert column(found, "optim.lr")[0] == 5e-5 and column(found, "optim.clip") == [None]
    assert jobs(ratio(), ["lora.ratio=16,1"]) == jobs(ratio(), [])


def test_an_argument_for_another_axis_of_the_arms_is_in_every_arm() -> None:
    found = jobs(ratio(), ["optim.lr=1e-3,1e-2"])
    assert len(found) == 2 * 3 * 2 * 2 * 2 and column(found, "optim.lr") == [1e-3, 1e-2]
    found = jobs(ratio(), ["optim.clip=5"])  # the first arm does not have it
    assert len(found) == len(jobs(ratio(), [])) and column(found, "optim.clip") == [5]


def test_a_key_that_all_arms_have_alike_does_not_tell_them_apart() -> None:
    arms = [{"k": 1, "e": 3}, {"k": 2, "e": 3}]
    assert jobs(grid({}, *arms), ["e=4"]) == [("k=1", "e=4"), ("k=2", "e=4")]
    assert jobs(grid({}, {"k": 1}), ["k=4"]) == [("k=4",)]


def test_rows_of_a_pair_in_the_arms_are_kept_too() -> None:
    spec = grid({}, {"k": 1, "a,b": [[1, 2], [3, 4]]}, {"k": 2, "a,b": [[5, 6]]}, {"k": 3})
    assert jobs(spec, ["a=3"]) == [("k=1", "a=3", "b=4"), ("k=3", "a=3")]
    assert jobs(spec, ["b=6", "k=2"]) == [("k=2", "a=5", "b=6")]


def test_of_two_arguments_for_one_key_the_last_counts() -> None:
    assert jobs(grid({"seed": [0, 1]}), ["seed=3,4", "++x=1", "x=2", "seed=5"]) == [("x=2", "seed=5")]


@pytest.mark.parametrize(
    ("argument", "line"),
    [
        ("lora.rank=4", "lora.rank: got 4; it varies together with lora.alpha, and has 1, 8"),
        ("lora.rank=8,4", "lora.rank: got 4; it varies together with lora.alpha, and has 1, 8"),
        ("lora.ratio=64", "lora.ratio: got 64; the sweep's arms have 1, 16"),
        ("lora.ratio=1,64", "lora.ratio: got 64; the sweep's arms have 1, 16"),
        ("lora.dropout=interval(0,1)", "lora.dropout: got interval(0,1), which lists no values; "),
        ("seed=interval(0,1)", "seed: got interval(0,1), which lists no values; "),
        ("~lora.ratio", "~lora.ratio: lora.ratio is an axis of the sweep; it is pinned by lora.ratio=VALUE"),
        ("+sweeps=a,b", "sweeps: got a,b; a command runs one study"),
        ("seed=101", "seed: got 101 for selection, which is among hydra.sweeper.confirm.params.seed; "),
    ],
)
def test_an_argument_that_no_job_can_have_is_a_mistake(argument: str, line: str) -> None:
    with pytest.raises(UserError) as caught:
        jobs(ratio(), [argument])
    assert str(caught.value).startswith(line)


# Smoke


def test_smoke_takes_the_place_of_axes_and_settings() -> None:
    found = jobs(ratio(), ["tracker=none"], smoke=True)
    assert axes(found) == {
        "seed": [0, 1],
        "lora.rank": [1, 8],
        "lora.alpha": [1, 16],
        "lora.ratio": [1, 16],
        "optim.clip": [None],
    }
    assert len(found) == 2 * 2 * 2
    constants = {"tracker": "none", "model": "tiny", "train.steps": 4, "task": "trec", "optim.lr": 1e-3}
    assert all(settings(job).items() >= constants.items() for job in found)


def test_the_command_line_wins_over_smoke() -> None:
    found = jobs(ratio(), ["model=minilm", "seed=5,6,7", "task=rotten_tomatoes"], smoke=True)
    assert column(found, "model") == ["minilm"] and column(found, "seed") == [5, 6, 7]
    assert column(found, "task") == ["rotten_tomatoes"] and column(found, "train.steps") == [4]


def test_smoke_keeps_the_arms_and_rows_that_it_names() -> None:
    assert column(jobs(ratio(smoke={"lora.ratio": 16}), [], smoke=True), "lora.ratio") == [16]
    assert column(jobs(ratio(smoke={"lora.ratio": 16}), ["lora.ratio=1"], smoke=True), "lora.ratio") == [1]
    assert column(jobs(ratio(smoke={"lora.rank": 8}), [], smoke=True), "lora.alpha") == [16]
    pair = {"lora.rank,lora.alpha": [[2, 3]]}
    assert column(jobs(ratio(smoke=pair), [], smoke=True), "lora.alpha") == [3]
    assert jobs(ratio(smoke=pair), []) == jobs(ratio(), [])


@pytest.mark.parametrize(
    ("smoke", "line"),
    [
        ({"lora.ratio": 4}, "hydra.sweeper.smoke.lora.ratio: got 4; the sweep's arms have 1, 16"),
        ({"lora.rank,seed": [[1, 1]]}, "hydra.sweeper.smoke.lora.rank,seed: only a part of"),
        ({"lora.ratio,optim.lr": [[1, 1]]}, "hydra.sweeper.smoke.lora.ratio,optim.lr: only a part of"),
        ({"lora.ratio,seed": [[1, 1]]}, "hydra.sweeper.smoke.lora.ratio,seed: some of these keys are in params"),
    ],
)
def test_a_smoke_size_that_does_not_fit_the_grid_is_named(smoke: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError) as caught:
        jobs(ratio(smoke=smoke), [], smoke=True)
    assert str(caught.value).startswith(line)


def test_axes_are_the_keys_that_vary_with_typed_values_in_the_order_met() -> None:
    assert axes(jobs(ratio(), ["+sweeps=ratio", "lora.targets=[q],[q,v]"])) == {
        "lora.targets": [["q"], ["q", "v"]],
        "task": ["rotten_tomatoes", "trec"],
        "seed": [0, 1, 2],
        "lora.rank": [1, 8],
        "lora.alpha": [1, 16],
        "lora.ratio": [1, 16],
        "optim.lr": [2e-4, 4.18e-4, 8.75e-4, 1.83e-3, 3.83e-3, 8e-3, 5e-5, 1.05e-4, 2.19e-4, 4.57e-4, 9.56e-4, 2e-3],
        "optim.clip": [None],
    }
    assert axes([]) == {} and axes(jobs(grid({"seed": [1]}), [])) == {}
