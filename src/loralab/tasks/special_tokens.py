"""Token ids of texts: the spelling of a tokenizer's own begin, end, separator, padding or mask token in a text is text.

A tokenizer reads `</s>` in a text as its end token, and a model then reads the text as if it ended there. All other
tokens that a checkpoint adds stay one token: a user's own (`<item_1>`, `[E1]`), also where they are marked as special.
"""

import functools
import itertools
import json
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from loralab.errors import UserError

__all__ = ["encode"]

Encoded = dict[str, list[list[int]]]
_Numbers = npt.NDArray[np.int64] | Sequence[int]


def encode(tokenizer: Any, columns: Sequence[list[str]], name: str, rows: _Numbers, **settings: Any) -> Encoded:
    """`tokenizer(*columns, **settings)`, unpadded, with no special tokens but those that the tokenizer itself adds.

    name: precedes a text's number in `rows`, in the UserError of a tokenizer that can't read a special token as text.
    """
    settings |= {"padding": False, "return_attention_mask": False}
    special = _special(tokenizer)
    own = int(_counts(tokenizer(*(["a"] for _ in columns), **settings)["input_ids"], special)[0])
    if tokenizer.is_fast:
        found = dict(tokenizer(*columns, **settings))
        affected = np.flatnonzero(_counts(found["input_ids"], special) > own).tolist()
        # not `split_special_tokens`: it splits a user's own, and none that is also a piece of the vocabulary, as in T5
        literal: Any = _renamed(tokenizer, special) if affected else None
    else:  # `split_special_tokens` splits all added tokens, so only the texts that need it have it
        affected = [row for row, text in enumerate(zip(*columns, strict=True)) if _spelled(special, text)]
        chosen = set(affected)
        others = [["a" if row in chosen else text for row, text in enumerate(column)] for column in columns]
        found = dict(tokenizer(*others, **settings))
        literal = functools.partial(tokenizer, split_special_tokens=True)
    if not affected:
        return found
    again = literal(*([column[row] for row in affected] for column in columns), **settings)
    still = _counts(again["input_ids"], special) > own
    for at, row in enumerate(affected):
        text = tuple(column[row] for column in columns)
        spelled = _spelled(special, text)
        if spelled and (still[at] or _has_other_added(tokenizer, special, text)):
            raise UserError(
                f"task.text: {name} {rows[row]} contains '{spelled}', and this tokenizer cannot read its own special "
                "token as text; remove it from the text, or use a checkpoint that has a tokenizer.json"
            )
        for key, values in found.items():
            values[row] = again[key][at]
    return found


def _special(tokenizer: Any) -> dict[int, str]:
    """{id: spelling} of the tokens with a role in a text.

    Without the unknown token, which any text may have, and without single characters, which a checkpoint may name as
    its padding (`!`) and every text uses.
    """
    roles = ("bos", "eos", "sep", "cls", "pad", "mask")
    named = {getattr(tokenizer, f"{role}_token_id"): getattr(tokenizer, f"{role}_token") for role in roles}
    return {i: token for i, token in named.items() if i is not None and len(token) > 1}


def _counts(rows: Sequence[Sequence[int]], special: Mapping[int, str]) -> npt.NDArray[np.int64]:
    """The number of special ids in each row."""
    lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
    flat = np.fromiter(itertools.chain.from_iterable(rows), dtype=np.int64, count=int(lengths.sum()))
    total = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(np.isin(flat, list(special)))])
    ends = np.cumsum(lengths)
    counts: npt.NDArray[np.int64] = total[ends] - total[ends - lengths]
    return counts


def _spelled(special: Mapping[int, str], texts: Sequence[str]) -> str | None:
    """A special token that is spelled in one of the texts, as a tokenizer's normalizer may read it."""
    read = "\n".join(unicodedata.normalize("NFKC", text).casefold() for text in texts)
    return next((token for token in special.values() if token.casefold() in read), None)


def _has_other_added(tokenizer: Any, special: Mapping[int, str], texts: Sequence[str]) -> bool:
    """Whether a text has an added token that is not special, which a tokenizer that is not fast would split."""
    added = {} if tokenizer.is_fast else tokenizer.added_tokens_decoder
    return any(token.content in text for i, token in added.items() if i not in special for text in texts)


def _renamed(tokenizer: Any, special: Mapping[int, str]) -> Any:
    """A fast tokenizer with the same ids, in which the `special` tokens have spellings that no text has."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    names = {token: f"\U0010fffd{i}\U0010fffd" for i, token in special.items()}  # a private character, twice
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    model = state["model"]
    if isinstance(model["vocab"], dict):
        model["vocab"] = {names.get(piece, piece): i for piece, i in model["vocab"].items()}
    else:  # Unigram: pieces with their scores
        model["vocab"] = [[names.get(piece, piece), score] for piece, score in model["vocab"]]
    if model.get("unk_token") in names:
        model["unk_token"] = names[model["unk_token"]]
    if "merges" in model:
        pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
        model["merges"] = [pair for pair in pairs if not {*pair, "".join(pair)} & set(names)]
    for token in state["added_tokens"]:
        token["content"] = names.get(token["content"], token["content"])
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(state)),
        truncation_side=tokenizer.truncation_side,
        model_input_names=tokenizer.model_input_names,
    )
