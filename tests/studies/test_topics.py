"""Every study that comes with loralab has one topic, and λ is the first."""

from collections import Counter

from loralab.places import OURS
from loralab.studies.topics import OWN, TOPICS, ordered, topic_of


def test_every_study_that_comes_with_loralab_has_exactly_one_topic() -> None:
    listed = Counter(study for names in TOPICS.values() for study in names)
    assert set(listed.values()) == {1}
    assert set(listed) == {path.stem for path in (OURS / "sweeps").glob("*.yaml")}


def test_ones_own_studies_come_first_and_then_the_ratio() -> None:
    found = ordered(["toy_mlp", "lr_grid", "mine", "ratio", "also_mine"])
    assert found == ["mine", "also_mine", "ratio", "lr_grid", "toy_mlp"]
    assert topic_of("mine") == OWN and topic_of("ratio").startswith("λ")
