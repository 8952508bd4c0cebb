"""PEFT's encoders of virtual tokens. Written for peft 0.18.0 and 0.21.2; PEFT is optional."""

from typing import Any, cast

from torch import nn

__all__ = ["prefix_encoder", "prompt_embedding", "prompt_encoder"]


def prefix_encoder(*, tokens: int, layers: int, heads: int, width: int, hidden: int | None) -> nn.Module:
    """indices (t) -> keys and values (t, layers 2 heads width). Li and Liang 2021. hidden: of its MLP; None: none."""
    from peft import PrefixEncoder, PrefixTuningConfig

    config = PrefixTuningConfig(
        **_settings(tokens, heads * width),
        num_layers=layers,
        num_attention_heads=heads,
        prefix_projection=hidden is not None,
        encoder_hidden_size=hidden,
    )
    return cast(nn.Module, PrefixEncoder(config))


def prompt_encoder(*, tokens: int, width: int, hidden: int) -> nn.Module:
    """indices (t) -> embeddings (t, width), by an MLP. Liu et al. 2021, P-tuning."""
    from peft import PromptEncoder, PromptEncoderConfig

    config = PromptEncoderConfig(**_settings(tokens, width), encoder_hidden_size=hidden)
    return cast(nn.Module, PromptEncoder(config))


def prompt_embedding(*, tokens: int, table: nn.Embedding) -> nn.Module:
    """indices (t) -> embeddings (t, width), which start at rows of the table drawn at random. Lester et al. 2021."""
    from peft import PromptEmbedding, PromptTuningConfig

    settings = _settings(tokens, table.weight.shape[1])
    config = PromptTuningConfig(**settings, prompt_tuning_init="SAMPLE_VOCAB")
    return cast(nn.Module, PromptEmbedding(config, table))


def _settings(tokens: int, width: int) -> dict[str, Any]:
    return {"num_virtual_tokens": tokens, "num_transformer_submodules": 1, "token_dim": width}
