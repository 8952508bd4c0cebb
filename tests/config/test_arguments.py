"""Tests of a command's arguments: short forms for people, and what is refused before Hydra reads it."""

import time

import pytest

from loralab.compat.hydra import flags
from loralab.config.arguments import in_arguments, translated
from loralab.errors import UserError


@pytest.mark.parametrize(
    ("given", "flags", "values"),
    [
        (["seed=1"], [], ["seed=1"]),
        (["a=logspace(1,100,3)"], [], ["a=1,10,100"]),
        (["sweeps=x", "seed=0"], ["--multirun"], ["+sweeps=x", "seed=0"]),
        (["sweeps=x", "hydra.mode=RUN", "seed=0"], [], ["+sweeps=x", "hydra.mode=RUN", "seed=0"]),
        (["+sweeps=x", "-m"], ["--multirun", "-m"], ["+sweeps=x"]),
        (["--dry-run", "seed=0,1"], ["--multirun"], ["hydra.sweeper.dry_run=true", "seed=0,1"]),
        (["--again", "seed=0"], [], ["train.again=true", "seed=0"]),
        (["sweeps=x", "smoke=true"], ["--multirun"], ["+sweeps=x", "hydra.sweeper.size=smoke"]),
        (["smoke=false", "sweeps=x"], ["--multirun"], ["hydra.sweeper.size=full", "+sweeps=x"]),
        (["--cfg", "job"], ["--cfg", "job"], []),
    ],
)
def test_what_is_short_for_people_is_what_hydra_takes(given: list[str], flags: list[str], values: list[str]) -> None:
    assert translated(given) == (flags, values)


def test_hydras_own_flags_and_their_short_forms_pass() -> None:
    known = flags()
    assert known is not None
    for given in (["--cfg", "job"], ["--cfg=job"], ["-m"], ["--multirun"], ["--mult"], ["-c", "job"], ["--help"]):
        assert in_arguments([*given, "lora.rank=4", "~model"], known) is None


@pytest.mark.parametrize(
    ("argument", "line"),
    [
        ("--experimental-rerun=a.pickle", "--experimental-rerun: it loads a pickle, which can run any code; "),
        ("--exp", "--experimental-rerun: it loads a pickle, which can run any code; "),
        ("-=", "-=: no such flag; "),
        ("--", "--: no such flag; "),
        ("--lora.rank=4", "--lora.rank: settings are written without dashes: lora.rank=4"),
    ],
)
def test_a_flag_that_is_none_is_refused(argument: str, line: str) -> None:
    found = in_arguments([argument], flags() or ())
    assert found is not None and found.startswith(line)


DEEP = "[1," * 400 + "1" + "]" * 400
REFUSED = {
    "seed=" + "9" * 5000: "seed: got a number of 5000 digits; ",
    "optim.lr=0." + "9" * 5000: "optim.lr: got a number of 5000 digits; ",
    f"lora.rank_pattern={DEEP}": "lora.rank_pattern: got '[1,[1,",
    "model=[q,v,1]": "model: got '[q,v,1]'; it takes the name of one option, as model=OPTION",
    "task=[a,[b]]": "task: got '[a,[b]]'; it takes the name of one option",
    "model={a:1}": "model: got '{a:1}'; it takes the name of one option",
    "~method": "~method: method cannot be removed with ~; choose one as method=OPTION",
    "~method=1": "~method=1: method cannot be removed with ~; ",
    "seed=range(1000000000)": "seed: got range(1000000000), which has 1,000,000,000 values; a sweep has at most ",
    "seed=sort(range(1000000000))": "seed: got sort(range(1000000000)), which has 1,000,000,000 values; ",
    "seed=int(range(1000000000))": "seed: got int(range(1000000000)), which has 1,000,000,000 values; ",
    "optim.lr=logspace(1,2,1000000000)": "optim.lr: got logspace(1,2,1000000000), which has 1,000,000,000 values; ",
}


@pytest.mark.parametrize("argument", REFUSED, ids=lambda argument: argument[:40])
def test_what_hydra_trips_over_is_refused_at_once(argument: str) -> None:
    start = time.process_time()
    with pytest.raises(UserError) as caught:
        translated([argument])
    assert str(caught.value).startswith(REFUSED[argument])
    assert len(str(caught.value)) < 300 and time.process_time() - start < 5


def test_a_product_of_lists_is_counted() -> None:
    many = ",".join(map(str, range(10)))
    with pytest.raises(UserError, match=r"^the product of the lists has 1,000,000 values; a sweep has at most"):
        translated(["-m", *(f"+a{i}={many}" for i in range(6))])
    translated(["-m", *(f"+a{i}={many}" for i in range(5))])  # 100,000
    translated(["-m", f"seed={many}", *[f"seed={many}"] * 9])  # the last of a key counts


def test_flags_stay_as_they_are() -> None:
    given = ["--config-dir", "x", "--config-name", "x", "-m"]
    assert translated(given) == (given, [])
