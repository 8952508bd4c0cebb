"""A session around a small real training: its files, and that an interrupt loses no step."""

import functools
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from loralab.errors import UserError
from loralab.store.run_directory import RunDirectory
from loralab.store.run_lock import LostRunError
from loralab.store.trackers import NoTracker
from loralab.training import optim
from loralab.training.checkpoint import Trained
from loralab.training.distributed import ALONE, Ranks
from loralab.training.loop import Batch, complete, train
from loralab.training.session import Session, open_session, stored_state
from loralab.training.signals import Interrupted, Interrupts
from tests.training.test_loop import Net, Trace, due

STEPS = 10


@dataclass
class Seen:
    """An observer that stores all events."""

    words: list[Any] = field(default_factory=list)

    def started(self, name: str, steps: int, groups: Sequence[dict[str, Any]], *, resumed_at: int) -> None:
        self.words.append(("started", name, steps, resumed_at))

    def step(self, step: int) -> None: ...

    def alive(self) -> None:
        self.words.append("alive")

    def line(self, line: dict[str, Any]) -> None:
        self.words.append(line["split"])

    def interrupted(self, step: int, steps: int) -> None:
        self.words.append(("interrupted", step, steps))

    def close(self) -> None:
        self.words.append("closed")


def directory(store: Path) -> RunDirectory:
    run = RunDirectory(store / "runs" / "tiny-x-0123456789")
    run.begin("seed: 0\n")
    return run


def trained(net: Net, ranks: Ranks = ALONE) -> Trained:
    """A weight as A, and a bias as B at four times the rate."""
    groups = [
        {"name": role, "roles": (role,), "names": [name], "params": [p], "lr": lr, "weight_decay": 0.0}
        for role, lr, (name, p) in zip("AB", (0.01, 0.04), net.named_parameters(), strict=True)
    ]
    optimizer = optim.adamw(groups, betas=(0.9, 0.999), eps=1e-8)
    return Trained(dict(net.named_parameters()), optimizer, torch.amp.GradScaler("cpu", enabled=False), ranks=ranks)


def trains(
    run: RunDirectory, *, screen: Seen | None = None, cut_at: int | None = None, kept: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Trains ten steps, from any checkpoint, interrupted before step `cut_at`; returns the final weights."""
    net, interrupts = Net(), Interrupts()
    its = trained(net)
    settings: dict[str, Any] = {"groups": [], "seed": 0, "tracker": NoTracker(), "workers": 1, "kept": kept}
    with open_session(
        its, run, stored_state(run, ALONE), name="it", steps=STEPS, checkpoint_seconds=1e9,
        screen=screen or Seen(), interrupts=interrupts, **settings,
    ) as session:  # fmt: skip

        def fetch(step: int) -> Batch:
            session.journal.step()
            interrupts.noted = 15 if step + 1 == cut_at else None
            return due(net, Trace.batch(step, 1.0))

        loop(net, session, fetch)
        session.save()
    return {name: p.detach() for name, p in net.named_parameters()}


def loop(net: Net, session: Session, fetch: Callable[[int], Batch]) -> None:
    training = train(
        net, session.trained.optimizer, steps=STEPS, fetch=fetch,
        factor=lambda step: 1.0, scaler=session.trained.scaler, clip=None, log_every=1,
        progress=session.progress, evaluation_due=lambda step: step == 5,
        evaluate=lambda _: session.log("validation", {"loss": float("nan")}),
        log=lambda _, loss: session.log("train", {"loss": loss}), checkpoint=lambda _: session.between_steps(),
    )  # fmt: skip
    complete(training)


def lines(run: RunDirectory) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in found]


def test_a_line_has_both_rates_and_null_for_what_is_not_finite(tmp_path: Path) -> None:
    run, screen = directory(tmp_path), Seen()
    trains(run, screen=screen)
    found = lines(run)
    assert [line["step"] for line in found if line["split"] == "train"] == list(range(1, STEPS + 1))
    assert {(line["lr_A"], line["lr_B"]) for line in found} == {(0.01, 0.04)}
    assert [line["values"] for line in found if line["split"] == "validation"] == [{"loss": None}]
    assert screen.words[0] == ("started", "it", STEPS, 0) and screen.words[-1] == "closed"
    assert screen.words[1:-1] == [line["split"] for line in found]


def test_probes_are_for_the_file_and_not_for_the_screen(tmp_path: Path) -> None:
    run, screen = directory(tmp_path), Seen()
    with open_session(
        trained(Net()), run, None, name="it", steps=STEPS, groups=[], seed=0, tracker=NoTracker(), workers=1,
        checkpoint_seconds=1e9, screen=screen, interrupts=Interrupts(),
    ) as session:  # fmt: skip
        session.log("probe", {"q/delta1": 0.5})
    assert [line["split"] for line in lines(run)] == ["probe"]
    assert "probe" not in screen.words


@pytest.mark.parametrize("at", [1, 5, 9])
def test_an_interrupt_leaves_a_checkpoint_and_no_step_is_lost_or_repeated(tmp_path: Path, at: int) -> None:
    whole = directory(tmp_path / "whole")
    expected = trains(whole)
    run, first, second = directory(tmp_path / "cut"), Seen(), Seen()
    with pytest.raises(Interrupted):
        trains(run, screen=first, cut_at=at)
    assert first.words[-2:] == [("interrupted", at, STEPS), "closed"]
    found = trains(run, screen=second)
    assert second.words[0] == ("started", "it", STEPS, at)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert lines(run) == lines(whole)
    assert int((run.path / "executed").read_text()) == STEPS


def test_any_other_exception_closes_the_screen_and_saves_nothing(tmp_path: Path) -> None:
    run, screen = directory(tmp_path), Seen()
    with pytest.raises(ZeroDivisionError), open_session(
        trained(Net()), run, None, name="it", steps=STEPS, groups=[], seed=0, tracker=NoTracker(), workers=1,
        checkpoint_seconds=0, screen=screen, interrupts=Interrupts(),
    ):  # fmt: skip
        raise ZeroDivisionError
    assert screen.words[-1] == "closed" and stored_state(run, ALONE) is None


def test_a_checkpoint_holds_what_it_is_given_beside_the_training(tmp_path: Path) -> None:
    run = directory(tmp_path)
    trains(run, kept={"identity": {"seed": 1}})
    state = stored_state(run, ALONE)
    assert state is not None and state["identity"] == {"seed": 1} and state["progress"]["step"] == STEPS


def test_a_rank_that_does_not_lead_writes_no_file(tmp_path: Path) -> None:
    class Follower(Ranks):
        """A rank without a rank 0."""

        @property
        def leads(self) -> bool:
            return False

    run = directory(tmp_path)
    before = sorted(run.path.iterdir())
    with open_session(
        trained(Net(), Follower()), run, None, name="it", steps=STEPS, groups=[], seed=0, tracker=NoTracker(),
        workers=1, checkpoint_seconds=0, screen=Seen(), interrupts=Interrupts(),
    ) as session:  # fmt: skip
        session.journal.step()
        session.log("train", {"loss": 1.0})
        session.between_batches()
        session.save()
        assert session.journal.executed == 0
    assert sorted(run.path.iterdir()) == before


def test_a_damaged_checkpoint_is_one_line(tmp_path: Path) -> None:
    run = directory(tmp_path)
    trains(run)
    path = run.checkpoint / "state.pt"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(UserError, match=r"is damaged .*; remove "):
        stored_state(run, ALONE)


def _of_wrong_shape(state: dict[str, Any]) -> None:
    state["weights"] = {name: w.reshape(1, -1) for name, w in state["weights"].items()}


def _broadcast(state: dict[str, Any]) -> None:
    state["weights"] = {name: w.reshape(-1)[:1] for name, w in state["weights"].items()}


def _of_wrong_type(state: dict[str, Any]) -> None:
    state["weights"] = {name: w.double() for name, w in state["weights"].items()}


def _moments_of_wrong_shape(state: dict[str, Any]) -> None:
    state["optimizer"]["state"][0]["exp_avg"] = torch.zeros(1)


def _moments_of_nothing(state: dict[str, Any]) -> None:
    state["optimizer"]["state"][7] = state["optimizer"]["state"][0]


def _fewer_groups(state: dict[str, Any]) -> None:
    del state["optimizer"]["param_groups"][1]


def _without_random(state: dict[str, Any]) -> None:
    del state["random"]["python"]


def _short_generator(state: dict[str, Any]) -> None:
    state["random"]["torch"] = state["random"]["torch"][:10]


def _another_best(state: dict[str, Any]) -> None:
    state["best"] = {"other": torch.zeros(1)}


def _negative(state: dict[str, Any]) -> None:
    state["progress"]["step"] = -1


def _another_run(state: dict[str, Any]) -> None:
    state["run"] = "9876543210"


def _without(key: str, state: dict[str, Any]) -> None:
    del state[key]


KEYS = ("progress", "metrics_size", "weights", "best", "optimizer", "scaler", "random", "random_of_other_ranks")
CHANGES = (
    _of_wrong_shape, _broadcast, _of_wrong_type, _moments_of_wrong_shape, _moments_of_nothing, _fewer_groups,
    _without_random, _short_generator, _another_best, _negative, _another_run, dict.clear,
    *(functools.partial(_without, key) for key in KEYS),
)  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_a_checkpoint_of_another_training_is_one_line_and_changes_nothing(
    tmp_path: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    run = directory(tmp_path)
    with pytest.raises(Interrupted):
        trains(run, cut_at=4, kept={"run": "0123456789"})
    state = stored_state(run, ALONE)
    assert state is not None
    change(state)
    torch.save(state, run.checkpoint / "state.pt")  # as an older version wrote it, without a seal
    before = (run.path / "metrics.jsonl").read_bytes()
    with pytest.raises(UserError, match=r"state\.pt is not a checkpoint of this run \(.*\); remove .*/checkpoint to"):
        trains(run, kept={"run": "0123456789"})
    assert (run.path / "metrics.jsonl").read_bytes() == before


def test_a_checkpoint_of_an_older_version_has_no_run_and_no_seal(tmp_path: Path) -> None:
    whole = trains(directory(tmp_path / "whole"))
    run = directory(tmp_path / "cut")
    with pytest.raises(Interrupted):
        trains(run, cut_at=4)
    torch.save(stored_state(run, ALONE), run.checkpoint / "state.pt")
    found = trains(run, kept={"run": "0123456789"})
    assert all(torch.equal(found[name], whole[name]) for name in whole)


@pytest.mark.parametrize("at", ["step", "batch", "line", "save"])
def test_a_training_whose_directory_is_gone_ends_and_makes_none(tmp_path: Path, at: str) -> None:
    run = directory(tmp_path / "store")
    with pytest.raises(LostRunError, match="was removed or replaced"), run.hold(wait=False):
        run.begin("seed: 0\n")
        with open_session(
            trained(Net()), run, None, name="it", steps=STEPS, groups=[], seed=0, tracker=NoTracker(), workers=1,
            checkpoint_seconds=1e9, screen=Seen(), interrupts=Interrupts(),
        ) as session:  # fmt: skip
            shutil.rmtree(tmp_path / "store")
            {
                "step": session.between_steps,
                "batch": session.between_batches,
                "line": lambda: session.log("train", {"loss": 1.0}),
                "save": session.save,
            }[at]()
    assert not (tmp_path / "store").exists()
