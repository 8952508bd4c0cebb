"""The topics of a report and the order of their studies, the most asked first; the headings of docs/findings.md."""

__all__ = ["OWN", "TOPICS", "ordered", "topic_of"]

TOPICS = {
    "λ, the ratio of the learning rates": (
        "ratio_seeds", "ratio", "ratio_fine", "rank_ratio", "ratio_imdb", "ratio_imdb_seeds", "convergence",
        "ratio_head", "ratio_head_seeds", "head_rate", "ratio_decoder", "ratio_sql", "lr_grid", "best_ratio",
        "protocol",
    ),
    "The learning rate": ("rate_law", "tenfold_decoder", "alpha_is_ratio", "horizon", "batch"),
    "Which maps, which rank, how many examples": ("targets", "targets_decoder", "rank", "rank_decoder", "low_data"),
    "The methods": ("methods", "intrinsic_dimension", "forgetting"),
    "Inside the update": (
        "subspace_rank", "subspace_seed", "subspace_weight", "subspace_ratio", "amplification", "intruders",
    ),
    "Benefits, measured": ("latency", "memory", "switching"),
    "Width": ("width", "width_small", "width_features"),
    "LoRA+'s models of width": ("toy_linear", "toy_mlp"),
    "The first sweep": ("first",),
}  # fmt: skip
"""Topic -> its studies, the one that answers it best first."""
OWN = "Your studies"
"""The topic of all studies that TOPICS does not list; it comes first."""

_PLACES = {study: place for place, study in enumerate(study for names in TOPICS.values() for study in names)}


def topic_of(study: str) -> str:
    """The topic that lists the study; OWN if none does."""
    return next((topic for topic, names in TOPICS.items() if study in names), OWN)


def ordered(studies: list[str]) -> list[str]:
    """The studies in the order of TOPICS, preceded by those that it does not list, in their own order."""
    return sorted(studies, key=lambda study: _PLACES.get(study, -1))
