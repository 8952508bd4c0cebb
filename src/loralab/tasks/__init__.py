"""Tasks: settings -> texts and labels, or pairs of texts -> fixed splits -> token ids -> padded batches, and metrics.

`identity` identifies the data without reading it into memory, `read` reads it, `tokenise` and `collate` make batches
(for pairs: `tokenise_pairs`, `collate_training` and `collate_contexts`).
"""

from loralab.tasks.metrics import METRICS, better, choose, score
from loralab.tasks.registry import GENERATION, NAMES, columns, identity, read, read_once, train_rows
from loralab.tasks.settings import TaskFiles, TaskSettings
from loralab.tasks.splits import Kind, Pairs, RawTask, Texts
from loralab.tasks.text_metrics import correct, score_texts
from loralab.tasks.tokenise import Split, collate, tokenise
from loralab.tasks.tokenise_pairs import PairSplit, collate_contexts, collate_training, tokenise_pairs

__all__ = [
    "GENERATION", "METRICS", "NAMES", "Kind", "PairSplit", "Pairs", "RawTask", "Split", "TaskFiles", "TaskSettings",
    "Texts", "better", "choose", "collate", "collate_contexts", "collate_training", "columns", "correct", "identity",
    "read", "read_once", "score", "score_texts", "tokenise", "tokenise_pairs", "train_rows",
]  # fmt: skip
