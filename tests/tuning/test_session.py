"""A session: every trial is trained once, a session that was killed goes on, and finished runs count as trials."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from loralab.config.schema import from_hydra
from loralab.errors import RunsFailed, UserError
from loralab.runs.run import run
from loralab.tuning.seen import Look
from loralab.tuning.session import Session
from loralab.tuning.trial import Answer, Observed, Seen, Settings, Trial, settings_of
from tests.small_runs import composer
from tests.tuning.sessions import RATES, STEPS, ThreeRates, Trained, session


def searched(one: Session, search: ThreeRates | None = None, launch: Trained | None = None, at_once: int = 2) -> Answer:
    one.begin(one.folder(None, {}) / "seen.json")
    return one.search(search or ThreeRates(), launch or Trained(), at_once=at_once, ended=lambda *_: None)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Session, Answer]:
    """A whole session; its store is not to be changed."""
    one = session(tmp_path_factory.mktemp("undisturbed"))
    return one, searched(one)


class Cut(Trained):
    """Ends the session after a launch, as a kill does."""

    def __call__(self, jobs: Sequence[tuple[str, ...]], first: int) -> None:
        super().__call__(jobs, first)
        raise KeyboardInterrupt


class Untrained(Trained):
    """Trains nothing."""

    def __call__(self, jobs: Sequence[tuple[str, ...]], first: int) -> None:
        pass


def executed(store: Path) -> dict[str, int]:
    """Steps that were executed, by the hash of the run."""
    found = {}
    for path in (store / "runs").glob("*/record.json"):
        record = json.loads(path.read_text())
        found[record["run_id"]] = record["timing"]["steps_executed"]
    return found


def test_every_trial_is_trained_to_where_it_pauses_and_the_best_to_its_end(
    undisturbed: tuple[Session, Answer],
) -> None:
    one, answer = undisturbed
    assert [trial.until for trial in one.asked] == [0.3, 0.3, 0.3, 1.0]
    assert sorted(executed(one.store).values()) == [3, 3, STEPS]
    assert dict(answer.settings)["optim.lr"] in RATES


def test_a_session_that_goes_on_trains_nothing_twice_and_answers_the_same(
    tmp_path: Path, undisturbed: tuple[Session, Answer]
) -> None:
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            searched(session(tmp_path), launch=Cut())
    last = session(tmp_path)
    assert searched(last) == undisturbed[1]
    assert executed(tmp_path) == executed(undisturbed[0].store)
    assert last.seen == undisturbed[0].seen


def test_the_same_session_again_trains_nothing(undisturbed: tuple[Session, Answer]) -> None:
    one, answer = undisturbed
    before = executed(one.store)
    assert searched(session(one.store)) == answer
    assert executed(one.store) == before


def test_a_run_that_went_on_is_seen_as_it_was_then(tmp_path: Path, undisturbed: tuple[Session, Answer]) -> None:
    """Another command has trained every trial to its end, after this session began."""
    first = session(tmp_path)
    searched(first)
    for rate in RATES:
        run(from_hydra(composer().settings(first.job(ThreeRates().at(rate)))))
    again = session(tmp_path)
    assert searched(again) == undisturbed[1]
    assert again.seen == undisturbed[0].seen


def test_finished_runs_that_fit_are_trials_and_others_are_not(tmp_path: Path) -> None:
    """They may log elsewhere; the rate of the head is that of the default run."""
    one = session(tmp_path)
    head = f"optim.head_lr={one.base.config.optim.head_lr}"
    fits = (*one.arguments, f"optim.lr={RATES[0]}", head, "train.eval_every=5")
    for job in (fits, (*fits, "lora.rank=4"), (*fits, "optim.weight_decay=.1"), (*fits, "optim.head_lr=1e-2")):
        run(from_hydra(composer().settings(job)))
    launch = Trained()
    searched(one, launch=launch)
    assert [trial.settings for trial in one.asked][:2] == [ThreeRates().at(rate) for rate in RATES[1:]]
    found = one.looks[ThreeRates().at(RATES[0])]
    assert found.observed.status == "success"
    assert [share for share, _ in found.observed.curve] == [0.5, 1.0]


def test_a_run_that_paused_is_a_trial_as_far_as_it_came(tmp_path: Path) -> None:
    first, settings = session(tmp_path), ThreeRates().at(RATES[0])
    run(from_hydra(composer().settings(first.job(settings, 0.5))))
    one = session(tmp_path)
    (found,) = one.begin(tmp_path / "seen.json").values()
    assert (found.observed.status, found.share, found.observed.reached) == ("paused", 0.5, 0.5)


def test_runs_that_finish_after_a_session_began_change_nothing_of_it(tmp_path: Path) -> None:
    first = session(tmp_path)
    file = first.folder(None, {}) / "seen.json"
    assert first.begin(file) == {}
    run(from_hydra(composer().settings(first.job(ThreeRates().at(RATES[0])))))
    assert session(tmp_path).begin(file) == {}


def test_what_the_store_had_survives_the_file(tmp_path: Path) -> None:
    one = session(tmp_path)
    run(from_hydra(composer().settings(one.job(ThreeRates().at(RATES[0])))))
    file = one.folder(None, {}) / "seen.json"
    assert one.begin(file) == session(tmp_path).begin(file) != {}
    file.write_text("[{}]")
    with pytest.raises(UserError, match=r"seen.json is damaged .*; remove it"):
        session(tmp_path).begin(file)


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("optim.lr=1e-3", "optim.lr: got 1e-3; the search chooses it, so leave it out"),
        ("seed=0,1", "seed: got 0,1; loralab tune takes one value for each key, and varies optim.lr itself"),
        ("train.pause_at=.5", "train.pause_at: got .5; the search says where trials pause, so leave it out"),
    ],
)
def test_a_setting_that_a_session_has_no_use_for_is_one_line(override: str, line: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as raised:
        session(tmp_path, override)
    assert str(raised.value) == line


def test_a_launch_of_failures_alone_ends_the_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = Look("run-0123456789", Observed((), "failed", ()), 0.0, 0.0, "out of memory")
    one = session(tmp_path)
    monkeypatch.setattr(one, "look", lambda *_: failed)
    with pytest.raises(RunsFailed, match="out of memory"):
        searched(one, launch=Untrained())


def test_a_search_that_asks_again_for_what_it_has_is_no_endless_loop(tmp_path: Path) -> None:
    class Deaf(ThreeRates):
        def ask(self, seen: Seen, at_once: int) -> list[Trial]:
            return [Trial(self.at(RATES[0]), 0.3)]

    with pytest.raises(RuntimeError, match="asks again"):
        searched(session(tmp_path), Deaf())


def test_the_default_run_is_the_trial_at_the_default_rate(tmp_path: Path) -> None:
    one = session(tmp_path)
    settings = settings_of({"optim.lr": one.base.config.optim.lr, "seed": 0})
    assert one.planned(settings).directory == one.base.directory


@pytest.mark.parametrize(
    ("overrides", "pinned"),
    [((), True), (("optim.head_lr=1e-3",), False), (("method=full", "optim.lr=auto"), False), (("method=lora",), True)],
)
def test_the_head_keeps_the_rate_of_the_default_run_beside_a_and_b(
    overrides: tuple[str, ...], pinned: bool, tmp_path: Path
) -> None:
    one = session(tmp_path, *overrides, keys=())
    settings: Settings = ThreeRates().at(RATES[0])
    added = set(one.job(settings)) - set(one.arguments)
    assert any(text.startswith("optim.head_lr=") for text in added) == pinned
    if pinned:
        assert one.planned(settings).config.optim.head_lr == one.base.config.optim.head_lr != RATES[0]


def test_a_session_of_no_steps_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^train\.steps: got 0; tuning compares trained models"):
        session(tmp_path, "train.steps=0").begin(tmp_path / "seen.json")


def test_the_folder_is_named_by_the_file_and_a_new_title_finds_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "my reviews.csv").write_text("text,label\n" + "".join(f"a text {n},{n % 2}\n" for n in range(80)))
    own = ("task=local", f"task.files.train='{tmp_path / 'my reviews.csv'}'", "task.text=[text]", "task.label=label",
           "task.train_rows=null", "task.eval_rows=null")  # fmt: skip
    folder = session(tmp_path, *own).folder(None, {})
    assert folder.name.startswith("tiny-my_reviews-lora-")
    folder.mkdir(parents=True)
    assert session(tmp_path, *own, "task.title=other").folder(None, {}) == folder
    assert session(tmp_path, *own, "seed=1").folder(None, {}).name.startswith("tiny-my_reviews-lora-")
    assert session(tmp_path, *own).folder("mine", {}).name.startswith("mine-")
