"""train.fsdp and what it does not go with."""

from pathlib import Path

import pytest

from loralab.errors import UserError
from tests.small_runs import config


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (("method=full",), r"train\.fsdp: got true with method=full, .*method=lora"),
        (("method=intrinsic",), r"train\.fsdp: got true with method=intrinsic, .*method=lora"),
        (("model.quantize=nf4",), r"train\.fsdp: got true with model\.quantize=nf4; .*set one"),
        (("probe.every=5",), r"train\.fsdp: got true with probe\.every=5; .*set probe\.every to null"),
    ],
)
def test_what_has_no_frozen_weights_to_shard_is_refused(overrides: tuple[str, ...], line: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"^{line}"):
        config(tmp_path, "train.fsdp=true", *overrides)
