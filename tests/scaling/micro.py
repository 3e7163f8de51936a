"""The smallest study: what tests train."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from isotypic.scaling import presets
from isotypic.scaling.bodies import Scenes

MICRO = replace(
    presets.TINY,
    name="micro",
    gatr={"S": (2, 4, 1, 1), "M": (2, 4, 2, 1), "L": (4, 4, 2, 1)},
    transformer={"S": (8, 1, 1), "M": (16, 1, 2), "L": (24, 2, 2)},
    tokens=(200, 400, 800),
    unique=(16, 48),
    repeat_size="M",
    repeat_tokens=(800,),
    batch=8,
    test_scenes=8,
    scenes=Scenes(least=3, most=5),
    checkpoint_every=7,
    bootstrap=20,
)


def as_file(**changes: Any) -> dict[str, Any]:
    """What a preset file with the micro preset holds."""
    return presets.write(replace(MICRO, **changes))
