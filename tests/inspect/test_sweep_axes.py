"""The axes of a sweep's figure: values in the order of their size, and a logarithmic axis where they are far apart."""

import matplotlib.pyplot as plt

from loralab.inspect.sweep_axes import far_apart, numeric_axes, set_ticks, values_on
from loralab.sweeps.ranking import rankings
from tests.sweeps.made_rows import row


def test_numbers_come_by_size_before_words() -> None:
    (found,) = rankings([row(0.5, lora__rank=value) for value in (16, "all", 2)], metric=None)
    assert values_on(found.configurations, "lora.rank") == ["2", "16", "all"]
    assert numeric_axes(["lora.rank"], found.configurations) == []


def test_an_axis_is_logarithmic_where_its_values_are_far_apart_and_no_tick_has_too_little_room() -> None:
    assert far_apart([1, 8]) and not far_apart([1, 7.9]) and not far_apart([0, 8])
    _, ax = plt.subplots()
    set_ticks(ax, [1.0, 1.1, 10.0, 100.0], most=3)
    assert ax.get_xscale() == "log" and list(ax.get_xticks()) == [1.0, 10.0, 100.0]
    plt.close()
