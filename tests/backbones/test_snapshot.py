"""The hub module against a small real hub (an HTTP server), a genuine cache, and networks that do not answer."""

import hashlib
import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from loralab.backbones import source
from loralab.backbones.hub import snapshot
from loralab.backbones.source import Source, locate
from loralab.errors import UserError
from tests.backbones.hub_server import COMMIT, MODEL, NEWER, Hub
from tests.families import FAMILIES, save_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(FAMILIES["roberta"]().base_model, tmp_path_factory.mktemp("model"))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub's, no proxy in the way, and an endpoint that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed = free.getsockname()[1]
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    use_endpoint(monkeypatch, f"http://127.0.0.1:{closed}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return tmp_path / "hub"


def use_endpoint(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    from huggingface_hub import hf_api

    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(hf_api.api, "endpoint", url)


@pytest.fixture
def hub(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    served = Hub(Path(shutil.copytree(checkpoint, tmp_path / "served")))
    (served.directory / "README.md").write_text("not needed")
    (served.directory / "tf_model.h5").write_text("not needed")
    thread = threading.Thread(target=served.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    use_endpoint(monkeypatch, served.url)
    yield served
    served.server.shutdown()
    served.server.server_close()
    thread.join()


def fill(cache: Path, checkpoint: Path, revision: str = "main", commit: str = COMMIT) -> Path:
    """A cache as huggingface_hub lays it out: blobs, links to them from a snapshot, and a reference."""
    root = cache / f"models--{MODEL.replace('/', '--')}"
    folder = root / "snapshots" / commit
    folder.mkdir(parents=True)
    (root / "blobs").mkdir()
    (root / "refs").mkdir()
    (root / "refs" / revision).write_text(commit)
    for file in checkpoint.iterdir():
        blob = root / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
        shutil.copy(file, blob)
        (folder / file.name).symlink_to(Path("../../blobs") / blob.name)
    return folder


def find(revision: str = "main", hub: str = MODEL) -> Source:
    source._snapshot.cache_clear()  # each look is that of a new process
    return locate(
        "mine", package=None, hub=hub, revision=revision, path=None, cache=Path(constants.HF_HUB_CACHE).parent
    )


def refusal(revision: str = "main", hub: str = MODEL) -> str:
    started = time.monotonic()
    with pytest.raises(UserError) as info:
        find(revision, hub)
    assert time.monotonic() - started < 10
    assert "\n" not in str(info.value)
    return str(info.value)


def test_branch_resolves_to_its_commit_and_only_what_is_needed_is_fetched(hub: Hub, cache: Path) -> None:
    source = find()
    assert (source.identity, source.origin, source.family, source.width) == (COMMIT, MODEL, "roberta", 32)
    assert source.directory == cache / "models--someone--tiny-roberta" / "snapshots" / COMMIT
    assert {file.name for file in source.directory.iterdir()} == {
        "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    for file in source.directory.iterdir():
        assert file.read_bytes() == (hub.directory / file.name).read_bytes()


def test_tag_and_commit_resolve_too(hub: Hub) -> None:
    assert find("v1").identity == find(COMMIT).identity == COMMIT
    assert hub.asked


def test_second_time_asks_for_the_commit_alone_and_a_cached_commit_asks_nothing(hub: Hub) -> None:
    find()
    hub.asked.clear()
    find()
    assert hub.asked == [f"GET /api/models/{MODEL}/revision/main"]
    hub.asked.clear()
    assert find(COMMIT).identity == COMMIT
    assert hub.asked == []


def test_moved_branch_gives_the_new_commit(hub: Hub) -> None:
    find()
    hub.revisions |= {"main": NEWER, NEWER: NEWER}
    assert find().identity == NEWER
    assert find("v1").identity == COMMIT


def test_what_was_fetched_is_found_without_the_hub(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    online = find("v1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.asked.clear()
    assert find("v1") == online
    assert hub.asked == []


def test_bin_is_fetched_where_there_are_no_safetensors_and_shards_all_come(hub: Hub) -> None:
    import torch
    from safetensors.torch import load_file

    weights = load_file(hub.directory / "model.safetensors")
    (hub.directory / "model.safetensors").unlink()
    names = sorted(weights)
    shards = {"pytorch_model-1.bin": names[::2], "pytorch_model-2.bin": names[1::2]}
    for shard, inside in shards.items():
        torch.save({name: weights[name] for name in inside}, hub.directory / shard)
    index = {"metadata": {}, "weight_map": {name: shard for shard, inside in shards.items() for name in inside}}
    (hub.directory / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    source = find()
    assert source.directory is not None
    assert {*shards, "pytorch_model.bin.index.json"} <= {file.name for file in source.directory.iterdir()}
    assert not source.safetensors


def test_repository_without_weights_is_told_so(hub: Hub) -> None:
    (hub.directory / "model.safetensors").unlink()
    message = refusal()
    assert message.startswith("model.hub: ")
    assert "has no weights" in message


def test_hub_that_does_not_answer_leaves_the_cache(cache: Path, checkpoint: Path) -> None:
    folder = fill(cache, checkpoint)
    source = find()
    assert (source.directory, source.identity) == (folder, COMMIT)


def test_hub_that_is_broken_leaves_the_cache(hub: Hub, cache: Path, checkpoint: Path) -> None:
    fill(cache, checkpoint)
    hub.broken = "api"
    assert find().identity == COMMIT


def test_cached_snapshot_loads(cache: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from loralab.backbones.load import load

    fill(cache, checkpoint)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    backbone = load(
        find(), labels=2, regression=False, dropout=0.0, attention="auto", dtype=torch.float32, device="cpu", seed=0
    )
    original = FAMILIES["roberta"]()
    name = "roberta.encoder.layer.1.attention.self.query.weight"
    assert torch.equal(backbone.model.get_parameter(name), original.get_parameter(name))


@pytest.mark.parametrize("gone", ["model.safetensors", "config.json", "tokenizer.json"])
def test_half_a_snapshot_does_not_count(cache: Path, checkpoint: Path, gone: str) -> None:
    (fill(cache, checkpoint) / gone).unlink()
    assert "has no complete copy" in refusal()


def without_hub(message: str, cache: Path) -> None:
    assert message.startswith(f"model=mine: {MODEL} at revision 'main' is not available: ")
    assert str(cache) in message
    assert all(offer in message for offer in ("model=minilm", "model=tiny", "model.path=DIR"))


def test_closed_port_is_one_line_that_says_where_it_looked(cache: Path) -> None:
    message = refusal()
    without_hub(message, cache)
    assert constants.ENDPOINT in message


def test_offline_switch_is_named(cache: Path, monkeypatch: pytest.MonkeyPatch, hub: Hub) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    message = refusal()
    without_hub(message, cache)
    assert "HF_HUB_OFFLINE is set" in message
    assert hub.asked == []


def test_server_that_accepts_and_then_says_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        use_endpoint(monkeypatch, f"http://127.0.0.1:{mute.getsockname()[1]}")
        without_hub(refusal(), cache)


def test_no_retry_chatter_in_a_fresh_process(cache: Path) -> None:
    code = """
from pathlib import Path
from loralab.backbones.source import locate
from loralab.errors import UserError
try:
    locate("roberta", package=None, hub="FacebookAI/roberta-base", revision="main", path=None, cache=Path("unused"))
except UserError as error:
    print(error)
"""
    environment = {"HF_ENDPOINT": constants.ENDPOINT, "HF_HOME": str(cache), "PYTHONPATH": ":".join(sys.path)}
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert time.monotonic() - started < 10
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 1
    assert done.stdout.startswith(
        "model=roberta: FacebookAI/roberta-base at revision 'main' is not available: the hub ("
    )


def test_gated_model_names_the_page_and_the_login(hub: Hub) -> None:
    hub.gated = True
    message = refusal()
    assert message.startswith(f"model.hub: {MODEL} is gated: accept its licence at {hub.url}/{MODEL}")
    assert "hf auth login" in message


@pytest.mark.usefixtures("hub")
def test_unknown_revision_is_named() -> None:
    assert refusal("v9").startswith(f"model.revision: {MODEL} has no branch, tag or commit 'v9'")


@pytest.mark.usefixtures("hub")
def test_unknown_model_is_named() -> None:
    assert "has no model 'someone/nothing', or it is private" in refusal(hub="someone/nothing")


def test_no_hub_id_is_told_by_its_look() -> None:
    for name in ("a/b/c", "a b", ""):
        assert refusal(hub=name).startswith(f"model.hub: {name!r} is not a hub id")


def test_download_that_breaks_off_is_one_line_and_the_next_goes_on(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)  # the library waits between its five tries
    hub.broken = "model.safetensors"
    with pytest.raises(UserError, match=r"^model.hub: the download of model.safetensors .* broke off") as info:
        find()
    assert "\n" not in str(info.value)
    assert capfd.readouterr() == ("", "")
    hub.broken = None
    hub.asked.clear()
    assert find().identity == COMMIT
    assert [path for path in hub.asked if "config.json" in path and path.startswith("GET")] == []


def test_snapshot_gives_directory_and_commit(cache: Path, checkpoint: Path) -> None:
    folder = fill(cache, checkpoint)
    assert snapshot("mine", MODEL, COMMIT) == (folder, COMMIT)
