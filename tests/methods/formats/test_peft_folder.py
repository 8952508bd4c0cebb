"""A folder loads as PEFT loads it, or ends in one line that names the folder: 330 damaged ones, and ties and copies."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from loralab.errors import UserError
from loralab.inspect.updates import find_adapter
from loralab.methods.formats.peft_lora import attach_peft, save_peft
from loralab.serving.adapters import read_adapter
from loralab.serving.switch import Switch
from tests.adapted import adapt, head_of, logits, shake
from tests.families import FAMILIES
from tests.methods.formats.damaged_folders import CASES

pytestmark = [
    # PEFT 0.21 reads an attribute that transformers 5.23 has renamed.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),  # PEFT's notes on what it finds
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from peft import LoraConfig, get_peft_model

    directory = tmp_path_factory.mktemp("good")
    model: Any = get_peft_model(
        FAMILIES["bert"](), LoraConfig(task_type="SEQ_CLS", r=4, target_modules=["query", "value"])
    )
    shake(model)
    model.save_pretrained(directory)
    return directory


def attached(directory: Path) -> Tensor:
    model = FAMILIES["bert"]()
    attach_peft(model, directory)
    return logits(model)


def switched(directory: Path) -> Tensor:
    model = FAMILIES["bert"]()
    Switch(model, {"task": read_adapter(directory)}).use("task")
    return logits(model)


def in_peft(directory: Path) -> Tensor | None:
    """PEFT's logits; None where it does not load the folder."""
    from peft import PeftModel

    try:
        return logits(PeftModel.from_pretrained(FAMILIES["bert"](), str(directory)))
    except Exception:  # PEFT's, torch's, and safetensors' errors
        return None


def check(directory: Path) -> str:
    """One line, or PEFT's logits: the first line that it ended in."""
    lines = []
    for read in (attached, switched, lambda path: find_adapter(path.parent, str(path)).updates):
        try:
            found = read(directory)
        except UserError as error:
            lines += [str(error)]
            continue
        if isinstance(found, Tensor):
            want = in_peft(directory)
            assert want is not None, "PEFT does not load it"
            torch.testing.assert_close(found, want, rtol=0, atol=1e-5, equal_nan=True)
    assert all("\n" not in line and str(directory) in line and len(line) < 800 for line in lines), lines
    assert not Path("unpickled").exists() and not (directory / "unpickled").exists(), "code from the folder was run"
    return lines[0] if lines else ""


def damaged(good: Path, directory: Path, change: Callable[[Path], object]) -> Path:
    shutil.copytree(good, directory)
    change(directory)
    return directory


def test_the_generator_has_330_folders_or_more() -> None:
    assert len(CASES) >= 330


@pytest.mark.parametrize("name", [*CASES][::37])
def test_some_damaged_folders_are_one_line_or_load_as_in_peft(name: str, good: Path, tmp_path: Path) -> None:
    check(damaged(good, tmp_path / "adapter", CASES[name]))


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_damaged_folder_is_one_line_or_loads_as_in_peft(name: str, good: Path, tmp_path: Path) -> None:
    print(check(damaged(good, tmp_path / "adapter", CASES[name])))


def made(family: str, directory: Path, **settings: Any) -> Any:
    """PEFT's model with a random adapter, saved in `directory`."""
    from peft import LoraConfig, get_peft_model

    model: Any = get_peft_model(FAMILIES[family](), LoraConfig(**settings))
    shake(model)
    model.save_pretrained(directory, save_embedding_layers=settings.get("modules_to_save") is None)
    return model


@pytest.mark.parametrize("saved", [["shared"], None], ids=["copied", "tied"])
def test_a_table_that_the_model_ties_is_copied_or_changed_everywhere_as_in_peft(saved: Any, tmp_path: Path) -> None:
    """T5's `shared`: PEFT copies a module to save, and writes into the shared table where it saved it for its size."""
    from peft import PeftModel
    from safetensors.torch import load_file, save_file

    made("t5", tmp_path, target_modules=["q"], modules_to_save=saved)
    file = tmp_path / "adapter_model.safetensors"
    tensors = load_file(file)
    (key,) = [key for key in tensors if key.endswith("shared.weight")]
    save_file(tensors | {key: tensors[key] + 0.5}, file)
    want = logits(PeftModel.from_pretrained(FAMILIES["t5"](), str(tmp_path)))
    ours, bare = FAMILIES["t5"](), FAMILIES["t5"]()
    attach_peft(ours, tmp_path)
    torch.testing.assert_close(logits(ours), want, rtol=0, atol=1e-5)
    switch = Switch(bare, {"task": read_adapter(tmp_path)})
    before = logits(bare)
    switch.use("task")
    torch.testing.assert_close(logits(bare), want, rtol=0, atol=1e-5)
    switch.use(None)
    assert torch.equal(logits(bare), before)


def test_a_copy_of_a_frozen_table_is_compared_with_the_models(tmp_path: Path) -> None:
    """PEFT loads the copy; so a table of another checkpoint would be silently another model."""
    made("bert", tmp_path, task_type="SEQ_CLS", target_modules=["word_embeddings"])
    assert attached(tmp_path).isfinite().all() and switched(tmp_path).isfinite().all()
    for read in (attach_peft, lambda model, path: Switch(model, {"task": read_adapter(path)})):
        model: Any = FAMILIES["bert"]()
        with torch.no_grad():
            model.bert.embeddings.word_embeddings.weight += 1
        with pytest.raises(UserError, match=r"its copy of the frozen weight of 'bert.*word_embeddings' is not the mod"):
            read(model, tmp_path)


def test_a_refused_folder_leaves_the_model_as_it_was(good: Path, tmp_path: Path) -> None:
    for name in ("lora_A: 99 less", "classifier: one row more", "layer.1. is layer.7.", "and a short bias"):
        model = FAMILIES["bert"]()
        before = {key: (value.clone(), value.requires_grad) for key, value in model.named_parameters()}
        with pytest.raises(UserError):
            attach_peft(model, damaged(good, tmp_path / name, CASES[name]))
        after = dict(model.named_parameters())
        assert after.keys() == before.keys()
        assert all(torch.equal(after[key], v) and after[key].requires_grad is g for key, (v, g) in before.items())


def test_a_targeted_map_without_tensors_is_refused(good: Path, tmp_path: Path) -> None:
    """PEFT would leave the map as it is, with a warning."""
    model = FAMILIES["bert"]()
    folder = damaged(good, tmp_path / "adapter", CASES["lora_A: 1 less"])
    shutil.copytree(good, tmp_path / "more")
    config = tmp_path / "more" / "adapter_config.json"
    config.write_text(config.read_text().replace('"query"', '"query",\n"key"'))
    for path, line in ((folder, "A is missing"), (tmp_path / "more", r"target_modules: names '.*key' \(Linear\), of")):
        with pytest.raises(UserError, match=line):
            attach_peft(model, path)
        with pytest.raises(UserError, match=line):
            Switch(model, {"task": read_adapter(path)})


def test_a_classifier_without_its_head_is_refused_whatever_modules_to_save_says(good: Path, tmp_path: Path) -> None:
    """PEFT adds the head to modules_to_save by the task type, and stumbles over the missing tensors."""
    folder = damaged(good, tmp_path / "adapter", CASES["classifier: 99 less"])
    CASES["modules_to_save is null"](folder)
    assert in_peft(folder) is None
    for read in (attached, switched):
        with pytest.raises(UserError, match=r"modules_to_save: classifier\.weight is not in adapter_model"):
            read(folder)


@pytest.mark.parametrize("family", FAMILIES)
def test_our_own_folder_is_attached_to_a_bare_model(family: str, tmp_path: Path) -> None:
    """Blocks of fused projections are one map, and every map of the family is found."""
    model = adapt(family, targets=["all"], bias="all", rank_pattern={"q": 3})
    shake(model)
    save_peft(model, tmp_path, head=head_of(model), base_model="tiny")
    ours = FAMILIES[family]()
    attach_peft(ours, tmp_path)
    torch.testing.assert_close(logits(ours), logits(model), rtol=0, atol=1e-5)
