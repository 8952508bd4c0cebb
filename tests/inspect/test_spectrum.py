"""`loralab spectrum`: the table and the JSON contain the spectra, and the figure shows them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loralab.cli.main import main
from loralab.inspect import spectra, spectrum
from loralab.inspect.spectrum import measured, short_names
from loralab.inspect.updates import Update, find_adapter, read_updates
from loralab.store.run_directory import RunDirectory
from tests.families import FAMILIES, save_checkpoint

D, K = 12, 9


def update(seed: int, r: int = 3) -> Update:
    rng = np.random.default_rng(seed)
    return Update(rng.standard_normal((r, K)).astype(np.float32), rng.standard_normal((D, r)).astype(np.float32), 0.5)


def zero() -> Update:
    return Update(update(0).A, np.zeros((D, 3), dtype=np.float32), 0.5)


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = main(arguments)
    out, err = capsys.readouterr()
    return status, out, err


def test_a_layer_has_the_numbers_of_its_dense_update() -> None:
    one, W = update(0), np.random.default_rng(1).standard_normal((D, K))
    delta = one.scaling * one.B.astype(float) @ one.A.astype(float)
    values = np.linalg.svd(delta, compute_uv=False)[:3]
    (layer,) = measured({"a": one}, {"a": W}, top=5, eps=0.9)
    assert (layer.layer, layer.rank, layer.scaling) == ("a", 3, 0.5)
    np.testing.assert_allclose(layer.singular_values, values)
    assert layer.norm == pytest.approx(np.linalg.norm(delta))
    assert layer.first == pytest.approx(values[0] ** 2 / np.linalg.norm(delta) ** 2)
    assert layer.stable_rank == pytest.approx(np.linalg.norm(delta) ** 2 / values[0] ** 2)
    assert layer.effective_rank == pytest.approx(spectra.effective_rank(values))
    assert layer.amplification == pytest.approx(spectra.amplification(*one.svd(), W))
    assert layer.intruders == spectra.intruders(W, delta, 5, 0.9) > 0


def test_without_w_or_with_top_zero_there_are_no_intruders() -> None:
    W = np.random.default_rng(1).standard_normal((D, K))
    (bare,), (unsought,) = (measured({"a": update(0)}, w, top=t, eps=0.5) for w, t in ((None, 5), ({"a": W}, 0)))
    assert (bare.amplification, bare.intruders) == (None, None)
    assert unsought.amplification is not None and unsought.intruders is None
    (all_of_them,) = measured({"a": update(0)}, {"a": W}, top=1000, eps=1.0)
    assert all_of_them.intruders is not None and all_of_them.intruders <= K, "W has no more singular vectors"


def test_an_update_of_zero_has_no_spectrum_but_a_row() -> None:
    layers = measured({"a": zero()}, {"a": np.eye(D, K)}, top=3, eps=0.5)
    assert (layers[0].norm, layers[0].effective_rank, layers[0].amplification) == (0, None, None)
    assert layers[0].intruders == 0
    assert spectrum.table(layers)[1].split() == ["a", "3", "0", "-", "-", "-", "0"]


def test_the_table_has_one_row_a_layer_and_no_column_of_a_missing_w() -> None:
    updates = {"model.layer.0.q": update(0), "model.layer.1.q": update(1, 2)}
    lines = spectrum.table(measured(updates, None, top=10, eps=0.5))
    assert [line.split()[:2] for line in lines[1:]] == [["0.q", "3"], ["1.q", "2"]]
    assert "amplification" not in lines[0] and "intruders" not in lines[0]
    W = dict.fromkeys(updates, np.eye(D, K))
    assert "amplification" in spectrum.table(measured(updates, W, top=0, eps=0.5))[0]


def test_names_lose_what_all_begin_with_and_keep_their_last_part() -> None:
    assert short_names(["m.0.q", "m.0.v", "m.1.q"]) == ["0.q", "0.v", "1.q"]
    assert short_names(["m.q", "m.v"]) == ["q", "v"]
    assert short_names(["m.q", "m.q.x"]) == ["q", "q.x"]
    assert short_names(["m.0.q"]) == ["m.0.q"]
    assert short_names([]) == []


def test_the_figure_draws_every_layers_spectrum() -> None:
    layers = measured({"0.q": update(0), "0.v": update(1), "1.q": update(2, 2), "1.v": zero()}, None, top=0, eps=0.5)
    figure = spectrum.drawn("mine", layers)
    values, shares = figure.axes
    drawn = [line for line in values.lines if len(line.get_xdata())]  # type: ignore[arg-type]  # the legend's lines are empty
    for layer, line, share in zip(layers, drawn, shares.lines, strict=True):
        expected = np.array(layer.singular_values)
        np.testing.assert_array_equal(line.get_ydata(), np.where(expected > 0, expected, np.nan))
        np.testing.assert_array_equal(share.get_ydata(), spectra.energy(expected))
    assert [line.get_color() for line in drawn[:2]] == [line.get_color() for line in drawn[2:]], "a colour a kind"
    assert drawn[0].get_color() != drawn[1].get_color()


def test_the_command_prints_the_table_and_writes_the_figure_into_the_store(
    finished: RunDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = said(capsys, "spectrum", str(finished.path), "--store", str(tmp_path))
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == finished.path.name
    assert [line.split()[:2] for line in lines[3:7]] == [
        [f"{layer}.attention.self.{role}", "8"] for layer in (0, 1) for role in ("query", "value")
    ]
    assert {"amplification", "intruders"} <= set(lines[2].split())
    stem = tmp_path / "figures" / f"spectrum-{finished.path.name}"
    assert lines[-2:] == [f"{stem}.png", f"{stem}.pdf"], "the ratio's dot is no suffix"
    assert all(Path(line).stat().st_size > 1000 for line in lines[-2:])


def test_json_has_all_singular_values_and_draws_only_where_told(
    finished: RunDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("spectrum", str(finished.path), "--json", "--store", str(tmp_path))
    found = json.loads(said(capsys, *arguments)[1])
    assert not list(tmp_path.iterdir())
    updates = read_updates(finished.adapter)
    for layer, (name, own) in zip(found["layers"], updates.items(), strict=True):
        assert layer["layer"] == name
        np.testing.assert_allclose(layer["singular_values"], own.svd().S)
        assert layer["intruders"] is not None
    _, out, err = said(capsys, *arguments, "--to", str(tmp_path / "mine.v2"))
    assert json.loads(out) == found
    assert err.splitlines() == [str(tmp_path / "mine.v2.png"), str(tmp_path / "mine.v2.pdf")]


def test_a_peft_folder_without_its_base_loses_two_columns_and_says_so(
    finished: RunDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    shutil.copytree(finished.adapter, tmp_path / "theirs")  # tiny's base model is called `random`
    _, out, _ = said(capsys, "spectrum", str(tmp_path / "theirs"), "--to", str(tmp_path / "x.png"))
    assert "no amplification and no intruders, for W is not there: " in out
    assert "'random', is no folder here" in out
    assert "intruders" not in out.splitlines()[2]
    assert (tmp_path / "x.png").is_file() and (tmp_path / "x.pdf").is_file()


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_an_adapter_that_peft_wrote_has_all_columns_where_its_base_is_a_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from peft import LoraConfig, get_peft_model

    base: Any = type(FAMILIES["bert"]()).from_pretrained(save_checkpoint(FAMILIES["bert"](), tmp_path / "base"))
    model = get_peft_model(base, LoraConfig(r=4, target_modules=["query"], init_lora_weights=False))
    model.save_pretrained(tmp_path / "theirs")
    found = json.loads(said(capsys, "spectrum", str(tmp_path / "theirs"), "--json", "--top", "4")[1])
    assert len(found["layers"]) == 2
    for layer in found["layers"]:
        W = base.get_submodule(layer["layer"]).base_layer.weight.detach().numpy()
        svd = find_adapter(tmp_path, str(tmp_path / "theirs")).updates[layer["layer"]].svd()
        assert layer["amplification"] == pytest.approx(spectra.amplification(*svd, W))
        assert layer["intruders"] == spectra.intruders(W, svd.U * svd.S @ svd.V.T, 4, 0.5)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["nothing"], "'nothing' names no run in "),
        (["RUN", "--top", "-1"], "--top -1 --eps 0.5: top is 0 or more, and eps in (0, 1]"),
        (["RUN", "--eps", "1.5"], "--top 10 --eps 1.5: top is 0 or more"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str], line: str, finished: RunDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [str(finished.path) if each == "RUN" else each for each in arguments]
    status, out, err = said(capsys, "spectrum", *given, "--store", str(tmp_path))
    assert (status, out) == (2, "")
    assert err.startswith(f"error: {line}") and err.count("\n") == 1
