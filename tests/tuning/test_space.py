"""Tests of the grammar of a space: what is written is what is searched, and each mistake has one line with its fix."""

import math
from typing import Any

import pytest
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from loralab.config.compose import configs
from loralab.errors import UserError
from loralab.tuning.space import Axis, check, holds, read_space


def axis(spec: str) -> Axis:
    (found,) = read_space([spec])
    return found


GOOD = {
    "optim.lr=log(1e-4,1e-2)": ("log", 1e-4, 1e-2, False),
    "optim.lr= log( 1e-4 , 1e-2 ) ": ("log", 1e-4, 1e-2, False),
    "optim.lr=log(.0001,.01)": ("log", 1e-4, 1e-2, False),
    "optim.lr=uniform(0,1)": ("uniform", 0, 1, False),
    "optim.head_lr=log(1e-4,1e-2)": ("log", 1e-4, 1e-2, False),
    "optim.weight_decay=uniform(0,0.1)": ("uniform", 0, 0.1, False),
    "optim.warmup=uniform(0,0.5)": ("uniform", 0, 0.5, False),
    "lora.ratio=log(1,64)": ("log", 1, 64, False),
    "lora.ratio=int(1,64)": ("int", 1, 64, True),
    "lora.alpha=log(4,64)": ("log", 4, 64, False),
    "lora.dropout=uniform(0,0.3)": ("uniform", 0, 0.3, False),
    "lora.rank=int(4,16)": ("int", 4, 16, True),
    "lora.rank=log(1,64)": ("log", 1, 64, True),
    "train.batch_size=int(8,32)": ("int", 8, 32, True),
    "train.steps=log(50,500)": ("log", 50, 500, True),
    "prompt.tokens=int(1,20)": ("int", 1, 20, True),
}
CHOICES: dict[str, tuple[Any, ...]] = {
    "lora.rank=[4,8,16]": (4, 8, 16),
    "lora.ratio=[1,4,16]": (1.0, 4.0, 16.0),
    "lora.ratio=[0.25,4]": (0.25, 4.0),
    "optim.lr=[1e-3,2e-3]": (1e-3, 2e-3),
    "optim.head_lr=[null,4e-3]": (None, 4e-3),
    "optim.clip=[null,1]": (None, 1.0),
    "optim.schedule=[linear,cosine]": ("linear", "cosine"),
    "optim.betas=[[0.9,0.999],[0.9,0.95]]": ((0.9, 0.999), (0.9, 0.95)),
    "lora.init=[A,B]": ("A", "B"),
    "lora.scaling=[alpha/r,alpha/sqrt_r]": ("alpha/r", "alpha/sqrt_r"),
    "lora.dora=[true,false]": (True, False),
    "lora.targets=[[q],[q,v],[all]]": (("q",), ("q", "v"), ("all",)),
    "lora.targets=[['layer.0.*'],[q]]": (("layer.0.*",), ("q",)),
    "model=[minilm,tiny]": ("minilm", "tiny"),
    "method=[lora,dora]": ("lora", "dora"),
    "train.precision=[fp32,'bf16']": ("fp32", "bf16"),
    "model.dropout=[0,0.1]": (0.0, 0.1),
}


@pytest.mark.parametrize("spec", GOOD)
def test_an_axis_of_numbers_has_its_ends(spec: str) -> None:
    found = axis(spec)
    assert (found.form, found.low, found.high, found.whole) == GOOD[spec]


@pytest.mark.parametrize("spec", CHOICES)
def test_choices_are_typed_and_can_be_keys(spec: str) -> None:
    found = axis(spec)
    assert found.choices == CHOICES[spec] and list(map(type, found.choices)) == list(map(type, CHOICES[spec]))
    assert hash(found.choices) is not None and all(map(found.contains, found.choices))


@pytest.mark.parametrize("spec", [*GOOD, *CHOICES])
def test_an_axis_reads_back_from_its_text(spec: str) -> None:
    assert axis(axis(spec).text) == axis(spec)


BAD = {
    "": "write KEY=log(a,b), uniform(a,b), int(a,b) or [x,y,z]",
    "optim.lr": "write KEY=log(a,b)",
    "optim.lr=": "write KEY=log(a,b)",
    "optim.lr=0.001": "one value; list several, as optim.lr=[x,y]",
    "optim.lr=log": "one value",
    "optim.lr=log(1e-4)": "it takes two bounds, as optim.lr=log(1e-4,1e-2)",
    "optim.lr=log(1e-4,1e-2,5)": "it takes two bounds",
    "optim.lr=log(a,b)": "it takes two bounds",
    "optim.lr=log()": "it takes two bounds",
    "optim.lr=log(1e-4,inf)": "both bounds must be finite",
    "optim.lr=uniform(nan,1)": "both bounds must be finite",
    "optim.lr=log(1e-2,1e-4)": "write log(0.0001,0.01)",
    "optim.lr=log(1e-2,1e-2)": "the first bound must be below the second",
    "optim.lr=log(0,1)": "uniform(0,1) may reach 0",
    "optim.lr=loguniform(1e-4,1e-2)": "write optim.lr=log(1e-4,1e-2)",
    "optim.lr=logspace(1e-4,1e-2,5)": "write optim.lr=log(1e-4,1e-2)",
    "optim.lr=interval(1e-4,1e-2)": "write optim.lr=uniform(1e-4,1e-2)",
    "optim.lr=unifrom(0,1)": "write optim.lr=uniform(0,1)",
    "optim.lr=frobnicate(0,1)": "write log(a,b), uniform(a,b)",
    "optim.lr=log(1e-4,1e-2": "write log(a,b), uniform(a,b)",
    "optim.lr=1e-4,1e-3": "list values in brackets: optim.lr=[0.0001,0.001]",
    "lora.rank=choice(4,8)": "write lora.rank=[4,8]",
    "lora.rank=range(4,16)": "write lora.rank=int(4,16)",
    "lora.rank=uniform(4,16)": "write int(4,16), or log(4,16)",
    "lora.rank=int(4,16.5)": "both bounds must be whole numbers",
    "lora.rank=log(1.5,16)": "both bounds must be whole numbers",
    "lora.rank=[4,8.5]": "lora.rank: got 8.5; it must be a whole number",
    "lora.rank=[4,eight]": "it must be a whole number",
    "lora.rank=[4,[8]]": "it must be a whole number",
    "lora.rank=[8]": "list at least two values",
    "lora.rank=[]": "list at least two values",
    "lora.rank=[4,8,4]": "with 4 twice",
    f"lora.rank={[*range(1, 102)]}".replace(" ", ""): "got 101 values; list at most 100",
    "lora.init=log(1,2)": "it takes no numbers: list its values",
    "lora.dora=int(0,1)": "it takes no numbers: list its values",
    "lora.targets=[q,v]": "each choice is itself a list: lora.targets=[[q,v],...]",
    "lora.rank_pattern=[{v:1},{v:2}]": "a mapping is not searched",
    "lora=[a,b]": "search one of them, as lora.KEY=[x,y,z]",
    "lora.rnak=[4,8]": "did you mean lora.rank?",
    "learning_rate=log(1e-4,1e-2)": "write optim.lr=RATE",
    "model=[tiny,4]": "it takes names of options",
    "model=log(1,2)": "it takes no numbers",
    "seed=[0,1,2]": "--seeds N",
    "task=[trec,imdb]": "tune one task at a time",
    "task.train_rows=[10,20]": "tune one task at a time",
    "store=[a,b]": "it does not change the loss",
    "train.threads=int(1,2)": "it does not change the loss",
    "train.pause_at=[10,20]": "take another key",
}  # fmt: skip


@pytest.mark.parametrize("spec", BAD)
def test_a_mistake_has_one_line_that_names_the_key_and_the_fix(spec: str) -> None:
    with pytest.raises(UserError) as caught:
        read_space([spec])
    line = str(caught.value)
    assert BAD[spec] in line and "\n" not in line
    assert line.startswith((spec.partition("=")[0] if "=" in spec and spec.partition("=")[2] else "--space") + ":")


def test_a_space_is_sorted_and_has_each_key_once() -> None:
    some = read_space(["optim.lr=log(1e-4,1e-2)", "lora.rank=[4,8]"])
    assert some == read_space(["lora.rank=[4,8]", "optim.lr=log(1e-4,1e-2)"])
    assert [axis.key for axis in some] == ["lora.rank", "optim.lr"]
    with pytest.raises(UserError, match=r"got lora.rank twice"):
        read_space(["lora.rank=[4,8]", "lora.rank=int(4,8)"])
    with pytest.raises(UserError, match=r"got nothing; name at least one key"):
        read_space([])


def test_a_run_lies_in_the_space_if_each_value_lies_on_its_axis() -> None:
    space = read_space(["optim.lr=log(1e-4,1e-2)", "lora.rank=int(4,8)", "lora.targets=[[q],[q,v]]"])
    inside = {"optim.lr": 1e-3, "lora.rank": 8, "lora.targets": ("q", "v")}
    assert holds(space, inside) and holds(space, {**inside, "lora.targets": ["q", "v"]})
    outside: list[dict[str, Any]] = [
        {"optim.lr": 2e-2},
        {"optim.lr": "auto"},
        {"optim.lr": True},
        {"lora.rank": 9},
        {"lora.rank": 4.5},
    ]
    for other in [*outside, {"lora.targets": ("v", "q")}, {"lora.alpha": 8}]:
        assert not holds(space, {**inside, **other}), other
    assert not holds(space, {"optim.lr": 1e-3})


def test_drawn_numbers_are_short_and_inside() -> None:
    rate = axis("optim.lr=log(1.2345e-4,1e-2)")
    assert rate.rounded(0.00137123) == 0.00137
    assert rate.rounded(1.2345e-4) == 1.2345e-4  # not 1.23e-4, which is below the end
    assert axis("lora.rank=log(1,64)").rounded(7.6) == 8 and isinstance(axis("lora.rank=int(1,64)").rounded(7.0), int)


@pytest.mark.parametrize(("value", "near"), [(1e-4, True), (1.2e-4, True), (1e-3, False), (9e-3, True)])
def test_a_value_near_an_end_is_told_on_the_axis_own_scale(value: float, near: bool) -> None:
    assert axis("optim.lr=log(1e-4,1e-2)").is_near_an_end(value) is near
    assert not axis("lora.rank=[4,8]").is_near_an_end(4)


def test_ends_and_choices_are_composed_before_the_first_trial() -> None:
    from hydra import compose

    with configs():

        def composed(overrides: Any) -> Any:
            return compose("config", ["model=tiny", *overrides])

        check(read_space(["optim.lr=log(1e-4,1e-2)", "method=[lora,dora]", "lora.targets=[[q],[q,v]]"]), composed)
        with pytest.raises(UserError, match=r"lora.rank: got 100000; .*at most 65536"):
            check(read_space(["lora.rank=int(4,100000)"]), composed)
        with pytest.raises(UserError, match=r"lora.init: got 'C'; allowed: A, B"):
            check(read_space(["lora.init=[A,C]"]), composed)
        with pytest.raises(UserError, match=r"lora.dropout"):
            check(read_space(["lora.dropout=uniform(0,1)"]), composed)
        with pytest.raises((HydraException, OmegaConfBaseException), match="lroa"):
            check(read_space(["method=[lora,lroa]"]), composed)


def test_ends_are_infinite_only_for_choices() -> None:
    assert axis("lora.rank=[4,8]").low == -math.inf and axis("lora.rank=int(4,8)").low == 4
