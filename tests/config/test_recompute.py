"""model.gradient_checkpointing and the methods that it would break."""

import pytest

from loralab.config.recompute import CACHED, check_recompute
from loralab.errors import UserError
from loralab.methods.registry import CATALOGUE


@pytest.mark.parametrize("method", CATALOGUE)
def test_only_methods_with_a_cache_are_refused(method: str) -> None:
    check_recompute(False, method)
    if method not in CACHED:
        check_recompute(True, method)
        return
    with pytest.raises(UserError, match=rf"^model\.gradient_checkpointing: got true with method={method}, .*set it to"):
        check_recompute(True, method)
