"""Settings of a network so small that it trains in a blink, for the tests of every room."""

from typing import Any

SMALL: dict[str, Any] = {
    "device": "cpu",
    "value": {"num_bins": 21},
    "model": {
        "encoder_width": 4,
        "embed_dim": 16,
        "num_heads": 2,
        "ff_dim": 16,
        "tokens_per_image": 2,
        "action_bins": 5,
        "head_dim": 8,
    },
}
