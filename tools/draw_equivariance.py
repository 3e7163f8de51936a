"""Draws docs/images/equivariance.webp, which moves, and equivariance.png, which does not: a letter turns, and features of two networks.

python tools/draw_equivariance.py
"""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib
import torch
from PIL import Image
from torch import Tensor, nn

import isotypic as iso

matplotlib.use("Agg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).resolve().parent.parent
FRAMES, SIZE, STILL = 36, 41, 5
INK, QUIET, WARM = "#23303b", "#5c6a75", "#b45f1b"
MARGINS = {"hspace": 0.1, "wspace": 0.04, "left": 0.05, "right": 0.99, "top": 0.93, "bottom": 0.07}


def letter() -> Tensor:
    """An F with soft edges, (1, 1, SIZE, SIZE)."""
    image = torch.zeros(1, 1, SIZE, SIZE)
    image[..., 11:30, 14:18] = 1.0
    image[..., 11:15, 14:28] = 1.0
    image[..., 19:23, 14:25] = 1.0
    return nn.functional.avg_pool2d(image, 3, 1, 1)


def networks() -> dict[str, nn.Module]:
    """Three layers each, without training: a plain CNN, and rotations by 22.5 degrees."""
    torch.manual_seed(6)
    plain = nn.Sequential(nn.Conv2d(1, 8, 7, padding="same"), nn.ReLU(), nn.Conv2d(8, 8, 7, padding="same"), nn.ReLU())
    turning = nn.Sequential(
        iso.nn.SteerableLiftConv2d(1, 8, 7, "C16", padding="same"),
        nn.ReLU(),
        iso.nn.SteerableConv2d(8, 8, 7, "C16", padding="same"),
        nn.ReLU(),
        iso.nn.GroupPool("max", group="C16"),
    )
    return {"a plain CNN": plain, "SteerableConv2d, C16": turning}


def picture(nets: dict[str, nn.Module], angle: float) -> Image.Image:
    turned = iso.data.rotate(letter(), angle)
    columns = [("the image", turned, 0.0)]
    for name, net in nets.items():
        with torch.no_grad():
            channel = int(net(letter()).mean((0, 2, 3)).argmax())
            still, moved = (net(image)[:, channel : channel + 1] for image in (letter(), turned))
        error = (iso.data.rotate(moved, -angle) - still)[..., 8:-8, 8:-8].norm() / still[..., 8:-8, 8:-8].norm()
        columns.append((name, moved, float(error)))
    figure, axes = plt.subplots(2, 3, figsize=(7.2, 4.9), dpi=72, gridspec_kw=MARGINS)
    disc = (torch.linspace(-1, 1, SIZE)[:, None] ** 2 + torch.linspace(-1, 1, SIZE) ** 2) < 0.9
    for (name, moved, error), (top, bottom) in zip(columns, axes.T, strict=True):
        back = iso.data.rotate(moved, -angle)
        for place, image in ((top, moved), (bottom, back)):
            values = torch.where(disc, image[0, 0], torch.nan).numpy()
            place.imshow(values, cmap="Blues" if error == 0 and name == "the image" else "viridis", vmin=0, vmax=float(image.max()))
            place.set_axis_off()
        top.set_title(name, fontsize=10, color=INK)
        if name != "the image":
            bottom.text(0.5, -0.07, f"off by {error:.0%}", transform=bottom.transAxes, ha="center", va="top", fontsize=11, color=WARM)
    axes[0, 0].text(-0.04, 0.5, "as computed", transform=axes[0, 0].transAxes, rotation=90, ha="right", va="center", color=QUIET)
    axes[1, 0].text(-0.04, 0.5, "turned back", transform=axes[1, 0].transAxes, rotation=90, ha="right", va="center", color=QUIET)
    buffer = io.BytesIO()
    figure.savefig(buffer, facecolor="white")
    plt.close(figure)
    return Image.open(buffer).convert("RGB")


def main() -> None:
    nets = networks()
    frames = [picture(nets, 360.0 * i / FRAMES) for i in range(FRAMES)]
    folder = ROOT / "docs/images"
    frames[0].save(folder / "equivariance.webp", save_all=True, append_images=frames[1:], duration=140, loop=0, quality=55, method=6)
    frames[STILL].quantize(128).save(folder / "equivariance.png", optimize=True)


if __name__ == "__main__":
    main()
