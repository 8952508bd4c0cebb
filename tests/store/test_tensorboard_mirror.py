"""Tests of TensorBoard's event files, as TensorBoard itself reads them."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from loralab.runs.run import run
from loralab.store.mirror import Place
from tests.pages import METRICS, line, tracker
from tests.small_runs import config, cut_off, outcome

pytest.importorskip("tensorboard")


def read(store: Path, folder: str = "p/study/tiny-0123456789") -> Any:
    """The events of a run, each name with all of its points."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(store / "tensorboard" / folder), size_guidance={"scalars": 0})
    return found.Reload()


def points(events: Any, name: str) -> list[tuple[int, float]]:
    return [(each.step, round(each.value, 6)) for each in events.Scalars(name)]


def settings(events: Any) -> tuple[dict[str, Any], bool]:
    """The hyperparameters of the session, and whether it ended well."""
    from tensorboard.plugins.hparams import metadata, plugin_data_pb2

    found: dict[str, Any] = {}
    for name, data in events.summary_metadata.items():
        if data.plugin_data.plugin_name == metadata.PLUGIN_NAME:
            found[name] = plugin_data_pb2.HParamsPluginData.FromString(data.plugin_data.content)
    start = found[metadata.SESSION_START_INFO_TAG].session_start_info
    values = {name: getattr(value, value.WhichOneof("kind")) for name, value in start.hparams.items()}
    return values, metadata.SESSION_END_INFO_TAG in found


def test_a_run_has_its_lines_scores_settings_and_status(tmp_path: Path) -> None:
    with tracker(tmp_path, "tensorboard") as opened:
        opened.begin([])
        root, study = tmp_path / "tensorboard", tmp_path / "tensorboard" / "p" / "study"
        how = f"`tensorboard --logdir {root}` shows it"
        assert opened.where == Place(f"{study / 'tiny-0123456789'}; {how}", f"{study}; {how}")
        opened.log(line(2))
        opened.log(line(4, "validation", loss=0.4, accuracy=0.8))
        opened.summarise("success", METRICS)
    events = read(tmp_path)
    assert points(events, "train/loss") == [(2, 0.5)] and points(events, "lr_B") == [(2, 0.016), (4, 0.016)]
    assert points(events, "validation/accuracy") == [(4, 0.8)] and points(events, "test/loss") == [(4, 0.6)]
    assert points(events, "best/validation/accuracy") == [(2, 0.9)]
    values, status = settings(events)
    assert values == {"lora.ratio": 16.0, "lora.targets": "['q', 'v']", "code.commit": "abc"} and status
    texts = [
        events.Tensors(f"{name}/text_summary")[0].tensor_proto.string_val[0] for name in ("name", "tags", "status")
    ]
    assert texts == [b"run-name", b"a", b"success"]


def test_a_run_that_was_killed_and_resumed_has_each_point_once_at_the_time_of_its_training(tmp_path: Path) -> None:
    killed = tracker(tmp_path, "tensorboard")
    killed.begin([])
    for step in (1, 2, 3, 4, 5):
        killed.log(line(step))
    killed.mirror.writer.flush()  # type: ignore[union-attr]
    with tracker(tmp_path, "tensorboard") as resumed:
        resumed.begin([line(1), line(2), line(3)])
        for step in (4, 5, 6):
            resumed.log(line(step))
    assert len(list((tmp_path / "tensorboard").rglob("events.*"))) == 2
    events = read(tmp_path)
    assert points(events, "train/loss") == [(step, round(1 / step, 6)) for step in (1, 2, 3, 4, 5, 6)]
    times = [each.wall_time for each in events.Scalars("train/loss")]
    assert [round(time - times[0], 3) for time in times] == [0, 0.1, 0.2, 0.3, 0.4, 0.5]


def test_a_run_that_is_trained_again_replaces_its_page_and_a_failure_is_told(tmp_path: Path) -> None:
    with tracker(tmp_path, "tensorboard", group=None) as first:
        first.begin([])
        first.log(line(9))
    with pytest.raises(KeyError), tracker(tmp_path, "tensorboard", group=None) as again:
        again.begin([])
        again.log(line(1))
        raise KeyError
    events = read(tmp_path, "p/tiny-0123456789")
    assert points(events, "train/loss") == [(1, 1.0)] and not settings(events)[1]


def test_a_resumed_runs_page_has_the_numbers_of_its_metrics_file_and_the_run_is_that_without_a_tracker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = config(tmp_path / "mirrored", "tracker=tensorboard", "tracker.group=paper", "tracker.tags=[a]")
    cut_off(asked, monkeypatch, at=15)
    record = run(asked)
    run(config(tmp_path / "alone"))
    assert outcome(tmp_path / "mirrored") == outcome(tmp_path / "alone")
    (path,) = (tmp_path / "mirrored" / "runs").iterdir()
    told = re.findall(r"mirrored in (.*); `tensorboard --logdir", capsys.readouterr().err)
    assert told == [str(tmp_path / "mirrored" / "tensorboard" / "loralab" / "paper" / path.name)] * 2
    lines = [json.loads(text) for text in (path / "metrics.jsonl").read_text().splitlines()]
    events = read(tmp_path / "mirrored", f"loralab/paper/{path.name}")
    for split in ("train", "validation"):
        steps, losses = zip(*((e["step"], e["values"]["loss"]) for e in lines if e["split"] == split), strict=True)
        found = events.Scalars(f"{split}/loss")
        assert tuple(each.step for each in found) == steps
        assert [each.value for each in found] == pytest.approx(losses, rel=1e-6)
    values, well = settings(events)
    assert values["parameters.trainable"] == record["parameters"]["trainable"] and values["seed"] == 0 and well
    assert values.get("code.commit") == record["git"]["commit"]
