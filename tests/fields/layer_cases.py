"""The layers between fields, for what every layer has to survive."""

from __future__ import annotations

from layer_case import Case
from torch import nn

from isotypic import groups

MIRROR = groups.generate([[[-1]]])

LAYERS: dict[str, list[Case]] = {
    "BlurPool2d": [
        Case(dict(group="p4m"), (2, 2, 8, 5, 5), "p4m"),
        Case(dict(group="p6m", kernel_size=5), (2, 2, 12, 9, 9), "p6m"),
    ],
    "BlurPool3d": [Case(dict(group="Oh", padding_mode="reflect"), (1, 1, 48, 3, 3, 3), "Oh")],
    "FieldDropout": [Case(dict(p=0.5), (2, 3, 4, 5, 5), "p4")],
    "FieldGroupNorm": [Case(dict(num_groups=2, num_fields=4), (2, 4, 8, 5, 5), "p4m")],
    "FieldLayerNorm": [Case(dict(num_fields=3), (2, 3, 8, 5, 5), "p4m"), Case(dict(num_fields=3), (2, 3, 48), "Oh")],
    "FieldInstanceNorm": [Case(dict(num_fields=3, affine=True), (2, 3, 8, 5, 5), "p4m")],
    "FieldMask": [Case(dict(size=5, group="p6m"), (2, 2, 12, 5, 5), "p6m")],
    "FieldPixelShuffle": [Case(dict(upscale_factor=2, group="p4m"), (2, 8, 8, 3, 3), "p4m")],
    "GroupAvgPool1d": [Case(dict(kernel_size=2, group=MIRROR), (2, 3, 2, 6), MIRROR.key)],
    "GroupAvgPool2d": [Case(dict(kernel_size=2), (2, 3, 4, 6, 6), "p4")],
    "GroupAvgPool3d": [Case(dict(kernel_size=2), (1, 2, 24, 4, 4, 4), "O")],
    "GroupBatchNorm": [
        Case(dict(num_fields=3), (2, 3, 8, 5, 5), "p4m"),
        Case(dict(num_fields=2, activation="relu"), (2, 2, 24, 3, 3, 3), "O"),
    ],
    "GroupConv1d": [Case(dict(in_fields=2, out_fields=3, kernel_size=4, group=MIRROR, stride=2, padding=1), (2, 2, 2, 6), MIRROR.key)],
    "GroupConv2d": [
        Case(dict(in_fields=2, out_fields=3, kernel_size=3, group="p4m", padding="same"), (2, 2, 8, 5, 5), "p4m"),
        Case(dict(in_fields=4, out_fields=4, kernel_size=2, group="p4", stride=2, groups=2, bias=False), (2, 4, 4, 6, 6), "p4"),
        Case(dict(in_fields=2, out_fields=2, kernel_size=3, group="p6", padding="same"), (2, 2, 6, 5, 5), "p6"),
        Case(dict(in_fields=2, out_fields=2, kernel_size=3, group="pmm", padding=1, padding_mode="reflect"), (2, 2, 4, 5, 4), "pmm"),
    ],
    "GroupConv3d": [
        Case(dict(in_fields=1, out_fields=2, kernel_size=3, group="O", padding="same"), (1, 1, 24, 3, 3, 3), "O"),
    ],
    "GroupConvTranspose1d": [
        Case(dict(in_fields=2, out_fields=3, kernel_size=3, group=MIRROR, stride=2, padding=1), (2, 2, 2, 5), MIRROR.key)
    ],
    "GroupConvTranspose2d": [
        Case(dict(in_fields=2, out_fields=3, kernel_size=3, group="p4m", stride=2, padding=1), (2, 2, 8, 4, 4), "p4m"),
    ],
    "GroupConvTranspose3d": [
        Case(dict(in_fields=2, out_fields=1, kernel_size=2, group="T", stride=2), (1, 2, 12, 2, 2, 2), "T"),
    ],
    "GroupLinear": [
        Case(dict(in_fields=2, out_fields=3, group="p6m"), (3, 2, 12), "p6m"),
        Case(dict(in_fields=2, out_fields=3, group="p4"), (2, 2, 4, 5, 5), "p4"),
        Case(dict(in_fields=2, out_fields=3, group="D8"), (2, 2, 16, 5, 5), "D8"),
        Case(dict(in_fields=2, out_fields=3, group="C12"), (3, 2, 12), "C12"),
    ],
    "GroupMaxPool1d": [Case(dict(kernel_size=3, stride=2, padding=1, group=MIRROR), (2, 3, 2, 5), MIRROR.key)],
    "GroupMaxPool2d": [Case(dict(kernel_size=3, stride=2, padding=1, group="p4m"), (2, 3, 8, 5, 5), "p4m")],
    "GroupMaxPool3d": [Case(dict(kernel_size=2), (1, 2, 24, 4, 4, 4), "O")],
    "GroupPool": [
        Case(dict(mode="max"), (2, 3, 8, 5, 5), "p4m", out_field="scalar"),
        Case(dict(mode="mean", keepdim=True), (2, 3, 8, 5, 5), "p4m", out_field="scalar"),
    ],
    "LiftConv1d": [
        Case(dict(in_channels=2, out_fields=3, kernel_size=3, group=MIRROR, padding="same"), (2, 2, 6), MIRROR.key, in_field="scalar")
    ],
    "LiftConv2d": [
        Case(dict(in_channels=3, out_fields=2, kernel_size=3, group="p4m", padding=1), (2, 3, 5, 5), "p4m", "scalar"),
        Case(dict(in_channels=1, out_fields=2, kernel_size=5, group="p3m1", padding="same"), (2, 1, 7, 7), "p3m1", "scalar"),
    ],
    "LiftConv3d": [
        Case(dict(in_channels=1, out_fields=2, kernel_size=3, group="Oh", padding="same", stride=1), (1, 1, 3, 3, 3), "Oh", "scalar"),
    ],
    # Exactly equivariant under the subgroup of the lattice, p4 or p4m, whose fields theirs consist of.
    "SteerableConv2d": [Case(dict(in_fields=2, out_fields=2, kernel_size=5, group="D8", padding="same"), (1, 2, 16, 7, 7), "p4m")],
    "SteerableConvTranspose2d": [
        Case(dict(in_fields=2, out_fields=2, kernel_size=4, group="C8", stride=2, padding=1), (1, 2, 8, 4, 4), "p4")
    ],
    "SteerableLiftConv2d": [
        Case(dict(in_channels=2, out_fields=2, kernel_size=5, group="C12", padding="same"), (2, 2, 7, 7), "p4", "scalar")
    ],
    # Its fixed inputs are not zero here; without them it is equivariant.
    "RelaxedGroupConv2d": [Case(dict(in_fields=2, out_fields=3, kernel_size=3, group="p4m", padding=1, p=0.0), (2, 2, 8, 5, 5), "p4m")],
    "PerChannel": [Case(dict(module=nn.Upsample(scale_factor=2, mode="bilinear"), group="p4m"), (2, 2, 8, 3, 3), "p4m")],
    "Restrict": [Case(dict(group="p4m", subgroup="pmm"), (2, 3, 8, 5, 5), "p4m")],
}
