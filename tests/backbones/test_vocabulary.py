"""Ids beyond a table: one line before training that names the token, its id and the table; only ids that occur."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from loralab.backbones.source import Source
from loralab.backbones.vocabulary import check_ids, check_types
from loralab.errors import UserError
from loralab.runs.run import run
from tests.backbones.checkpoints import find, take
from tests.families import FAMILIES, VOCABULARY, save_checkpoint
from tests.generators import GENERATORS
from tests.small_runs import config

ITEMS = [f"<item_{i}>" for i in range(9)]


def add(folder: Path, *tokens: str, **special: Any) -> None:
    """Adds tokens to a saved tokenizer, and not to the model."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(list(tokens))
    tokenizer.add_special_tokens(special)
    tokenizer.save_pretrained(folder)


def local(tmp_path: Path, folder: Path, texts: list[str], *more: str) -> Any:
    data = tmp_path / "d.csv"
    data.write_text("s,y\n" + "".join(f"{text} w{3 + i},{'ab'[i % 2]}\n" for i, text in enumerate(texts)))
    task = ["task=local", f"task.files.train={data}", "task.text=[s]", "task.label=y"]
    rows = [
        "task.train_rows=null",
        "task.eval_rows=null",
        "train.max_length=16",
        "train.steps=2",
        "train.eval_every=null",
    ]
    return config(tmp_path / "store", *task, *rows, "model.name=mine", f"model.path={folder}", *more)


@pytest.mark.parametrize("family", ["bert", "roberta", "gpt2", "llama", "t5", "mpnet"])
def test_an_added_token_that_occurs_is_one_line(family: str, tmp_path: Path) -> None:
    folder = save_checkpoint(FAMILIES[family]().base_model, tmp_path / family)
    add(folder, *ITEMS)
    asked = local(tmp_path, folder, [f"buy {item}" for item in ITEMS] * 6)
    said = (
        r"^model\.path: the token '<item_8>' .* has id 108, and the embedding table of .* has 100 rows \(ids 0 to 99\)"
    )
    with pytest.raises(UserError, match=said) as info:
        run(asked)
    assert "model.resize_token_embeddings(len(tokenizer))" in str(info.value) and "\n" not in str(info.value)


def test_an_added_token_that_never_occurs_is_no_matter(tmp_path: Path) -> None:
    folder = save_checkpoint(FAMILIES["bert"]().base_model, tmp_path / "bert")
    add(folder, *ITEMS)
    assert run(local(tmp_path, folder, ["w7 w8"] * 50))["status"] == "success"


def test_a_pad_token_beyond_the_table_is_one_line(bert: Path, tmp_path: Path) -> None:
    add(bert, pad_token="<new>")
    with pytest.raises(UserError, match=r"^model\.path: .*pad token has id 100, and the embedding table has 100 rows"):
        take(find(bert, tmp_path))


def test_an_added_token_in_a_pair_is_one_line(tmp_path: Path) -> None:
    folder = save_checkpoint(GENERATORS["gpt2"](), tmp_path / "gpt2")
    add(folder, *ITEMS)
    data = tmp_path / "d.csv"
    data.write_text("s,y\n" + "".join(f"w{3 + i},buy <item_{i % 9}>\n" for i in range(60)))
    task = ["task=pairs", f"task.files.train={data}", "task.text=[s]", "task.label=y"]
    more = ["task.train_rows=null", "task.eval_rows=null", "generate.max_new_tokens=8"]
    mine = ["model.name=mine", f"model.path={folder}"]
    with pytest.raises(UserError, match=r"^model\.path: the token '<item_8>' of the task's texts has id 108"):
        run(config(tmp_path / "store", *task, *more, *mine))


def test_token_types_that_the_model_lacks_are_one_line(checkpoint: Callable[..., Source]) -> None:
    of_one_type, without = take(checkpoint("bert")), take(checkpoint("distilbert"))
    of_one_type.model.config.type_vocab_size = 1
    for backbone, said in ((of_one_type, r"has 1 \(type_vocab_size\)"), (without, "takes none")):
        check_types(backbone, [np.zeros(3, dtype=np.int8)])
        with pytest.raises(UserError, match=rf"^model\.path: .* token types up to 1, and the model {said}; remove"):
            check_types(backbone, [np.zeros(3, dtype=np.int8), np.array([0, 1], dtype=np.int8)])
    check_types(take(checkpoint("deberta_v2")), [np.zeros(3, dtype=np.int8)])


def test_the_last_row_of_the_table_is_allowed(checkpoint: Callable[..., Source]) -> None:
    backbone = take(checkpoint("bert"))
    check_ids(backbone, [])
    check_ids(backbone, [np.array([0, VOCABULARY - 1]), np.array([], dtype=np.int32)])
    with pytest.raises(UserError, match=rf"has id {VOCABULARY}, "):
        check_ids(backbone, [np.array([0, VOCABULARY])])
