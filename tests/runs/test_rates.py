"""`optim.lr: auto` resolves by the rate law, before the run is named; and the line about λ and the rates."""

import json
import math
from pathlib import Path

import pytest

from loralab import tasks
from loralab.errors import UserError
from loralab.runs.plan import plan, task_settings
from loralab.runs.rates import advice, law_rates, rates_line, steps_of
from loralab.theory import rate_law
from tests.small_runs import config

LORA = ("method=lora", "method=lora_plus", "method=dora", "method=rslora", "method=lora_prefix")


def rates(tmp_path: Path, *overrides: str) -> tuple[float, float]:
    optim = plan(config(tmp_path, *overrides)).config.optim
    assert isinstance(optim.lr, float) and isinstance(optim.head_lr, float)
    return optim.lr, optim.head_lr


@pytest.mark.parametrize("method", LORA)
def test_auto_is_the_default_and_the_law_with_a_and_b(tmp_path: Path, method: str) -> None:
    asked = config(tmp_path, method)
    assert (asked.optim.lr, asked.optim.head_lr) == ("auto", None)
    assert rates(tmp_path, method) == law_rates(asked, width=64, steps=12)


def test_auto_is_the_same_run_as_the_numbers_it_resolves_to(tmp_path: Path) -> None:
    lr, head = rates(tmp_path)
    ours = plan(config(tmp_path)).directory
    assert plan(config(tmp_path, f"optim.lr={lr}", f"optim.head_lr={head}")).directory == ours
    assert float(f"{lr:.3g}") == lr and float(f"{head:.3g}") == head, "typed as it is printed"
    assert plan(config(tmp_path, "model.rates={mlp:1}")).directory == ours, "an unused rate is in no identity"
    assert plan(config(tmp_path, f"model.rates={{q:{2 * rate_law.MINILM['q']}}}")).directory != ours


@pytest.mark.parametrize("known", [[], ["model.rates={q:.02,v:.01,head:4e-3}"]])
@pytest.mark.parametrize("init", ["A", "B"])
def test_a_wider_copy_has_lr_a_over_k_at_k_times_lambda_also_by_measured_rates(
    tmp_path: Path, init: str, known: list[str]
) -> None:
    """lr_B = λ lr_A then stays; of measured rates too, which are those before the units were copied."""
    narrow = rates(tmp_path, f"lora.init={init}", "lora.ratio=4", *known)
    wide = rates(tmp_path, f"lora.init={init}", "lora.ratio=16", "model.widen=4", *known)
    assert wide == pytest.approx([rate / 4 for rate in narrow], rel=5e-3), "to three digits"


def test_without_a_and_b_the_default_rate_falls_with_the_width_where_matrices_are_trained(tmp_path: Path) -> None:
    for method, factor in (("head", 4), ("full", 4), ("bitfit", 1)):
        asked = (f"method={method}", "optim.lr=auto", "model.default_lr=0.012", "model.widen=4")
        assert rates(tmp_path, *asked) == pytest.approx((0.012 / factor, 0.012 / factor))


def test_a_number_is_what_it_always_was(tmp_path: Path) -> None:
    assert rates(tmp_path, "optim.lr=2e-3") == (2e-3, 2e-3), "the head's rate rides along"
    assert rates(tmp_path, "optim.lr=2e-3", "optim.head_lr=4e-3") == (2e-3, 4e-3)
    assert rates(tmp_path, "optim.head_lr=4e-3")[1] == 4e-3, "beside auto, too"


@pytest.mark.parametrize("method", ["head", "full", "bitfit", "prefix", "intrinsic", "houlsby"])
def test_methods_without_a_and_b_have_their_own_rate_or_the_backbones_default(tmp_path: Path, method: str) -> None:
    asked = config(tmp_path, f"method={method}", "model.default_lr=0.0123")
    own = asked.optim.lr if isinstance(asked.optim.lr, float) else 0.0123
    assert rates(tmp_path, f"method={method}", "model.default_lr=0.0123") == (own, own)
    assert rates(tmp_path, "method=head", "model.default_lr=0.0123") == (0.0123, 0.0123)


def test_a_larger_rank_ratio_or_alpha_lowers_lr_a_and_leaves_the_heads_rate(tmp_path: Path) -> None:
    lr, head = rates(tmp_path)
    for override in ("lora.ratio=64", "lora.alpha=64", "lora.targets=[all]", "lora.scaling=constant"):
        lower, same = rates(tmp_path, override)
        assert lower < lr and same == head, override
    assert rates(tmp_path, "lora.rank=64") == (lr, head), "with alpha/r the rank cancels"
    assert rates(tmp_path, "lora.rank_pattern={q:16}", "lora.scaling=constant")[0] < lr, "the largest rank counts"


def test_the_number_of_steps_is_counted_as_the_run_has_it(tmp_path: Path) -> None:
    """Without reading a packaged task's rows; of the user's files they are counted."""
    epochs = ("train.steps=null", "train.epochs=1.5", "task.train_rows=null")
    trec = config(tmp_path, "task=trec", *epochs)
    assert rates(tmp_path, "task=trec", *epochs) == law_rates(trec, width=64, steps=600)
    mine = tmp_path / "mine.csv"
    mine.write_text("text,label\n" + "".join(f"sentence {n},{n % 2}\n" for n in range(2000)))
    local = ("task=local", f"task.files.train={mine}", "task.text=[text]", "task.label=label", "task.eval_rows=null")
    asked = config(tmp_path, *local, *epochs)
    rows = len(tasks.read(task_settings(asked.task)).splits["train"])
    expected = law_rates(asked, width=64, steps=round(1.5 * math.ceil(rows / 8)))
    assert rates(tmp_path, *local, *epochs) == expected
    assert rates(tmp_path, *local, *epochs, "task.train_rows=400") == law_rates(asked, width=64, steps=75)


def test_rows_are_counted_only_where_auto_needs_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise AssertionError("counted")

    monkeypatch.setattr(tasks, "train_rows", refuse)
    epochs = ("train.steps=null", "train.epochs=1")
    plan(config(tmp_path, *epochs, "optim.lr=1e-3"))
    plan(config(tmp_path, *epochs, "method=head"))
    plan(config(tmp_path))
    with pytest.raises(AssertionError, match="counted"):
        plan(config(tmp_path, *epochs))


def test_steps_round_to_whole_batches_and_are_at_least_one() -> None:
    assert [steps_of(epochs, None, per_epoch=10) for epochs in (0.001, 0.26, 2)] == [1, 3, 20]
    assert [steps_of(2, steps, per_epoch=10) for steps in (7, 0)] == [7, 0]


def test_rates_out_of_the_optimizers_range_are_one_line_also_where_the_law_gives_them(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^optim.lr: got \S+; the optimizer computes in fp32"):
        plan(config(tmp_path, "lora.alpha=1e30", "lora.ratio=1e30", "model.rates={q:1e-30,v:1e-30}"))


def test_the_line_has_lambda_s_lambda_and_whether_the_rate_is_the_laws(tmp_path: Path) -> None:
    def line(*overrides: str, width: int | None = 64) -> str | None:
        return rates_line(plan(config(tmp_path, *overrides)).config, width=width, steps=12)

    law, _ = rates(tmp_path, "lora.alpha=16")
    assert line("lora.alpha=16") == f"λ 4, s λ 8, lr_A {law:.3g} (the rate law's)"
    assert line("lora.alpha=16", "optim.lr=1e-3") == f"λ 4, s λ 8, lr_A 0.001 ({law:.3g} is the rate law's)"
    assert line("lora.alpha=16", "optim.lr=1e-3", width=None) == "λ 4, s λ 8, lr_A 0.001"
    assert line("method=head") is None
    assert rates_line(config(tmp_path), width=64, steps=12) is None, "auto is not resolved yet"


def test_the_advice_after_a_divergence_is_the_laws_rate_or_half_of_a_lower_one(tmp_path: Path) -> None:
    def after(*overrides: str) -> str:
        return advice(plan(config(tmp_path, *overrides)).config, width=64, steps=12)

    law, _ = rates(tmp_path)
    assert after(f"optim.lr={4 * law:g}") == (
        f"the run diverged: optim.lr={4 * law:.3g} is 4 times the rate law's; try optim.lr=auto, which is {law:.3g}"
    )
    assert after(f"optim.lr={law / 2:g}").endswith(f"try optim.lr={law / 4:.2g}, half of what it was")
    assert "and optim.clip=1" in after("method=head", "optim.lr=1e-2", "optim.clip=null")


def test_the_known_sizes_of_tasks_are_those_that_are_read() -> None:
    for name in ("trec", "sms_spam"):
        settings = tasks.TaskSettings(name)
        assert tasks.train_rows(settings, "") == len(tasks.read(settings).splits["train"])
    assert tasks.train_rows(tasks.TaskSettings("sql", split_seed=0), json.dumps({})) == 20_000
