"""The used W&B settings exist in the installed release."""

import pytest
import wandb

from loralab.compat.wandb import quiet_settings


def test_settings_are_quiet_and_an_unknown_one_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    found = quiet_settings()
    assert found.console == "off" and found.disable_git is True and found.x_disable_stats is True
    fields = {name: field for name, field in wandb.Settings.model_fields.items() if name != "x_disable_stats"}
    monkeypatch.setattr(wandb.Settings, "model_fields", fields)
    assert quiet_settings().console == "off"
