"""model.quantize and the settings that it does not go with."""

import pytest

from loralab.config.quantize import MOVED, check_quantize
from loralab.errors import UserError
from loralab.methods.registry import CATALOGUE


@pytest.mark.parametrize("method", CATALOGUE)
def test_only_methods_that_train_the_weights_themselves_are_refused(method: str) -> None:
    check_quantize(None, method, 2)
    if method not in MOVED:
        check_quantize("nf4", method, 1)
        return
    with pytest.raises(UserError, match=rf"^model\.quantize: got nf4 with method={method}, which trains .*null"):
        check_quantize("nf4", method, 1)


def test_a_widened_backbone_is_refused() -> None:
    with pytest.raises(UserError, match=r"^model\.quantize: got int8 with model\.widen=2, .*; set mode"):
        check_quantize("int8", "lora", 2)
