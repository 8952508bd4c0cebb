"""`loralab spectrum`, `compare`, `probes` and `curves`: a table or JSON of trained runs, and a figure."""

import argparse
import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from loralab.text import printed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["compare", "curves", "drawn", "probes", "spectrum"]


def spectrum(given: argparse.Namespace) -> int:
    """An adapter's spectra, layer by layer."""
    from loralab.inspect import spectrum as anatomy
    from loralab.inspect.updates import find_adapter

    adapter = find_adapter(given.store, given.adapter)
    layers, notes = anatomy.spectrum(adapter, top=given.top, eps=given.eps)
    if given.json:
        print(json.dumps(anatomy.as_json(adapter, layers, notes), indent=2))
    else:
        print(printed([adapter.name, "", *anatomy.table(layers), "", *notes]))
    return drawn(given, f"spectrum-{adapter.name}", lambda: anatomy.drawn(adapter.name, layers))


def compare(given: argparse.Namespace) -> int:
    """The overlap of two adapters' subspaces."""
    from loralab.inspect import compare as compared
    from loralab.inspect.updates import find_adapter

    first, second = (find_adapter(given.store, wanted) for wanted in given.adapters)
    pairs, notes = compared.compared(first, second), compared.notes(first, second)
    if given.json:
        print(json.dumps(compared.as_json(first, second, pairs, notes), indent=2))
    else:
        print(printed([first.name, second.name, "", *compared.table(pairs), "", *notes]))
    name = f"compare-{first.name}-{second.name}"
    return drawn(given, name, lambda: compared.drawn(first.name, second.name, pairs))


def probes(given: argparse.Namespace) -> int:
    """The effect of single updates, and whether a factor is starved."""
    from loralab.inspect import probes as probed
    from loralab.store.run_directory import find

    found = probed.read(find(given.store, given.run))
    if given.json:
        print(json.dumps(probed.as_json(found), indent=2))
    else:
        print(printed([found.name, "", *probed.table(found), "", *probed.NOTES, probed.verdict(found)]))
    return drawn(given, f"probes-{found.name}", lambda: probed.drawn(found))


def curves(given: argparse.Namespace) -> int:
    """The learning curves of runs."""
    from loralab.inspect import learning_curves
    from loralab.store.run_directory import find

    runs = learning_curves.read([find(given.store, wanted) for wanted in given.runs])
    print(json.dumps(learning_curves.as_json(runs), indent=2) if given.json else printed(learning_curves.table(runs)))
    more = "" if len(runs) == 1 else f"-and-{len(runs) - 1}-more"
    return drawn(given, f"curves-{runs[0].name}{more}", lambda: learning_curves.drawn(runs))


def drawn(given: argparse.Namespace, name: str, draw: "Callable[[], Figure]") -> int:
    """Writes a figure to --to, or into the store by default; with --json, only if --to is given."""
    from loralab import plotting

    if given.to or not given.json:
        to = plotting.named_file(given.to or given.store / "figures" / f"{name}.png")
        with plotting.style():
            files = plotting.save(draw(), to)
        print(printed(map(str, files)), file=sys.stderr if given.json else sys.stdout)
    return 0
