"""The layout: sizes, names, allowed imports, and a test file for every module."""

import ast
import re
from pathlib import Path

from tests.conftest import GATE

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "loralab"
MODULES = sorted(path for path in PACKAGE.rglob("*.py"))
PLACES = ("*.py", "src/**/*.py", "analysis/**/*.py", "benchmarks/**/*.py")
TESTS = sorted((ROOT / "tests").rglob("*.py"))
CODE = sorted(path for place in PLACES for path in ROOT.glob(place))

LONGEST = 350
FORBIDDEN = {"utils", "util", "common", "helpers", "helper", "misc", "base", "manager", "core", "lib"}

# The packages ("rooms") of src/loralab in import order, single-file ones first: a room imports only rooms before it
# and itself. `__init__` is above all. Add a new room to this list.
ROOMS = (
    "errors", "files", "text", "imports", "streams", "startup", "device", "hub", "plotting", "places", "entries",
    "compat", "config", "theory", "store", "backbones", "tasks", "training", "methods", "runs", "serving",
    "interchange", "switch", "sweeps", "tuning", "pretraining", "inspect", "studies", "from_python", "cli",
    "__init__", "__main__",
)  # fmt: skip

# Modules whose tests are in a file of another name.
ELSEWHERE = {
    "__init__": "studies/test_tables",
    "__main__": "cli/test_dispatch",
    "cli/pretrain": "cli/test_dispatch",
    "cli/train": "cli/test_dispatch",
    "cli/version": "cli/test_dispatch",
    "imports": "test_startup",
    "interchange": "serving/test_adapters",
    "switch": "serving/test_adapters",
    "studies/completeness": "studies/test_results",
    "runs/batch": "runs/test_run",
    "runs/build": "runs/test_run",
    "runs/load": "methods/test_registry",
    "store/record": "runs/test_record",
    "backbones/checkpoint": "backbones/test_locate",
    "backbones/head": "backbones/test_load",
    "backbones/hub": "backbones/test_snapshot",
    "backbones/source": "backbones/test_locate",
    "sweeps/cell": "sweeps/test_study",
    "sweeps/launch": "test_plugins",
    "sweeps/live_runs": "sweeps/test_progress",
    "tasks/__init__": "tasks/test_registry",
    "tuning/command": "cli/test_tune",
    "sweeps/child": "test_from_python",
    "tuning/from_python": "test_tune",
    "tuning/searches": "tuning/test_run",
    "tuning/stored": "tuning/test_session",
}


def name_of(path: Path) -> str:
    """`tasks/raw` for src/loralab/tasks/splits.py."""
    return str(path.relative_to(PACKAGE).with_suffix(""))


def _is_ours(parts: list[str]) -> bool:
    return PACKAGE.joinpath(*parts).is_dir() or PACKAGE.joinpath(*parts).with_suffix(".py").is_file()


def imports(path: Path) -> set[str]:
    """The loralab modules that a file imports, at any level, as `tasks/raw`."""
    dotted: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            dotted |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            assert node.module is not None
            dotted |= {f"{node.module}.{alias.name}" for alias in node.names}
    inside = (name.split(".")[1:] for name in dotted if name.split(".")[0] == "loralab")
    found = set()
    for parts in inside:
        while parts and not (
            PACKAGE.joinpath(*parts).with_suffix(".py").is_file() or PACKAGE.joinpath(*parts).is_dir()
        ):
            parts = parts[:-1]  # the last part is a name inside the module
        package = ["__init__"] if PACKAGE.joinpath(*parts).is_dir() else []
        found |= {"/".join([*parts, *package])}
    return found


def test_no_module_is_longer_than_the_cap() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in (*CODE, *TESTS)}
    assert {name: length for name, length in lengths.items() if length > LONGEST} == {}


def test_entries_at_the_top_are_thin() -> None:
    for path in ROOT.glob("*.py"):
        assert len(path.read_text().splitlines()) <= 25, path.name


def test_no_file_has_a_name_that_says_nothing() -> None:
    for path in [*CODE, *TESTS]:
        assert path.stem.removeprefix("test_") not in FORBIDDEN, path
    for directory in (path for path in PACKAGE.rglob("*") if path.is_dir()):
        assert directory.name not in FORBIDDEN, directory


def test_a_room_imports_only_rooms_before_it() -> None:
    rooms = {path: name_of(path).split("/")[0] for path in MODULES}
    new = set(rooms.values()) - set(ROOMS)
    assert new == set(), "add them to ROOMS, where their imports allow it"
    upward = [
        f"{name_of(path)} imports {imported}"
        for path, room in rooms.items()
        for imported in imports(path) - {"__init__"}
        if ROOMS.index(imported.split("/")[0]) > ROOMS.index(room)
    ]
    assert upward == []


def test_errors_and_files_stand_on_nothing_of_ours() -> None:
    assert imports(PACKAGE / "errors.py") == set()
    assert imports(PACKAGE / "files.py") == {"errors"}


def test_nothing_imports_what_stands_above_it() -> None:
    """There are no import cycles among modules, of any length."""
    direct = {name_of(path): imports(path) for path in MODULES}

    def reached(name: str, seen: frozenset[str]) -> frozenset[str]:
        for other in direct[name]:
            if other not in seen:
                seen = reached(other, seen | {other})
        return seen

    for name in direct:
        assert name not in reached(name, frozenset()), f"{name} imports itself through another module"


def test_hydra_builds_no_objects_from_yaml() -> None:
    for path in [*ROOT.glob("conf/**/*.yaml"), *ROOT.glob("sweeps/**/*.yaml")]:
        assert "_target_" not in path.read_text(), path
    for path in CODE:  # except Hydra's plugins, whose names Hydra sets; compat/hydra.py follows the launcher it makes
        text = path.read_text().replace("Plugins.instantiate_launcher", "").replace('"instantiate_launcher"', "")
        assert "instantiate" not in text or "hydra_plugins" in path.parts, path


def test_the_config_object_stops_at_runs() -> None:
    """Rooms before runs/ take plain keyword arguments; the registry of methods maps the config to them."""
    below = ROOMS[ROOMS.index("config") + 1 : ROOMS.index("runs")]
    holders = {name_of(path) for path in MODULES if any(i.startswith("config/") for i in imports(path))}
    assert {name for name in holders if name.split("/")[0] in below} == {"methods/registry"}


def test_every_module_has_its_test_file() -> None:
    without = []
    for path in MODULES:
        if path.name == "__init__.py" and len(path.read_text().splitlines()) <= 5:
            continue  # a docstring, or nothing
        name = name_of(path)
        room, _, stem = name.rpartition("/")
        mirror = f"{room}/test_{stem}" if room else f"test_{stem}"
        if not (ROOT / "tests" / f"{ELSEWHERE.get(name, mirror)}.py").is_file():
            without.append(f"{name} has no tests/{mirror}.py")
    assert without == []


def test_no_exception_outlives_its_reason() -> None:
    for name in ELSEWHERE:
        assert (PACKAGE / f"{name}.py").is_file(), name
        room, _, stem = name.rpartition("/")
        assert not (ROOT / "tests" / room / f"test_{stem}.py").is_file(), f"{name} has a test file of its own now"


def test_no_annotation_names_a_method_of_its_own_class() -> None:
    """Python 3.14 evaluates annotations inside the class; cloudpickle does so when it pickles a job for SLURM."""
    for path in [*CODE, *TESTS]:
        for kind in (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef)):
            methods = [node for node in kind.body if isinstance(node, ast.FunctionDef)]
            names = {method.name for method in methods}
            for method in methods:
                arguments = [*method.args.posonlyargs, *method.args.args, *method.args.kwonlyargs]
                notes = [note for note in (method.returns, *(a.annotation for a in arguments)) if note is not None]
                used = {node.id for note in notes for node in ast.walk(note) if isinstance(node, ast.Name)}
                assert not used & names, f"{path}: {kind.name}.{method.name}"


def test_the_gate_names_tests_that_are_there() -> None:
    for name in GATE:
        file, _, test = name.partition("::")
        assert f"def {test.partition('[')[0]}(" in (ROOT / file).read_text(), name


PRIVATE = re.compile(
    r"\bhydra\._internal\b|\btransformers\.(models|masking_utils|modeling_utils|pytorch_utils|cache_utils|integrations)\b"
    r"|\b(past_key_values|_attn_implementation|_supports_sdpa|_init_weights|_from_config|_is_hf_initialized|_check_help)\b"
    r"|\b_(apply_overrides_to_config|convert_value)\b|\bx_disable_stats\b"
)


def test_what_is_private_of_a_library_is_in_one_module_for_it() -> None:
    for path in [*CODE, *(ROOT / "src" / "hydra_plugins").rglob("*.py")]:
        if path.parent != PACKAGE / "compat":
            found = PRIVATE.search(path.read_text())
            assert found is None, f"{path}: {found[0] if found else ''} belongs into loralab/compat"


def test_compat_knows_nothing_of_ours() -> None:
    for path in (PACKAGE / "compat").glob("*.py"):
        assert imports(path) == set(), path
