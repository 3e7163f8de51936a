"""A vision transformer that looks at the adjacency matrix of a graph as at an image. It knows nothing of permutations."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from isotypic._files import looks_like
from isotypic.models._graphs import Block, Output, check_nodes, check_output, cleared, node_mask
from isotypic.nn._arguments import divisible, positive


class Loaded(NamedTuple):
    """What became of a checkpoint: sorted names of tensors."""

    loaded: tuple[str, ...]
    """of the network, that now hold values of the file"""
    fresh: tuple[str, ...]
    """of the network, that the file has no values for: patches of another size, the head"""
    unused: tuple[str, ...]
    """of the file"""


class ImageTransformerOnGraphs(nn.Module):
    """A vision transformer on the image of a graph: pixel (i, j) has the features of the edge, those of node i and those of node j.

    The image has `grid` patches of ceil(max_nodes / grid) pixels along each side, so that a transformer that was trained on photographs of
    14 patches of 16 pixels can be taken over with its positions; only its patches and its head are new. Pixels outside of a graph are 0.

    Args:
        node_channels: features of a node, 0 for none. edge_channels: features of an edge. out_channels: outputs.
        max_nodes: the largest graph; it sets the size of a patch.
        hidden_channels, heads, layers: of the transformer; the defaults are those of ViT-B. grid: patches along each side.
        output: "graph", read from the class token, or "node", read from the pixels of a node's row, in the mean.
        checkpoint: a file to load, as `load_checkpoint` does.
        device, dtype: of the parameters.

    Input:  adjacency (B, n, n) or (B, n, n, edge_channels); x (B, n, node_channels), where there are any; lengths (B) integers, where
            graphs are padded. Padding may hold anything.
    Output: (B, out_channels), or (B, n, out_channels) with 0 at padding
    Raises ValueError for other shapes and for more than max_nodes nodes, TypeError for other dtypes.

    A. Dosovitskiy et al., "An Image is Worth 16x16 Words", 2021; J. Kim et al., "Learning Probabilistic Symmetrization for Architecture
    Agnostic Equivariance", 2023.

    >>> small = ImageTransformerOnGraphs(0, max_nodes=20, hidden_channels=32, heads=4, layers=2)
    >>> small(torch.ones(2, 9, 9)).shape, small.patch
    (torch.Size([2, 1]), 2)
    """

    def __init__(
        self,
        node_channels: int,
        edge_channels: int = 1,
        out_channels: int = 1,
        *,
        max_nodes: int,
        hidden_channels: int = 768,
        heads: int = 12,
        layers: int = 12,
        grid: int = 14,
        output: Output = "graph",
        checkpoint: str | Path | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        owner = "ImageTransformerOnGraphs"
        positive(owner, edge_channels=edge_channels, out_channels=out_channels, max_nodes=max_nodes, grid=grid)
        positive(owner, hidden_channels=hidden_channels, heads=heads, layers=layers)
        if node_channels != 0:
            positive(owner, node_channels=node_channels)
        divisible(owner, heads, hidden_channels=hidden_channels)
        check_output(owner, output)
        self.node_channels, self.edge_channels, self.max_nodes, self.output = node_channels, edge_channels, max_nodes, output
        self.grid, self.patch, self.out_channels = grid, -(-max_nodes // grid), out_channels
        self.patch_embed = nn.Sequential()
        channels = edge_channels + 2 * node_channels
        self.patch_embed.add_module("proj", nn.Conv2d(channels, hidden_channels, self.patch, stride=self.patch))
        self.cls_token = nn.Parameter(0.02 * torch.randn(1, 1, hidden_channels))
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, 1 + grid * grid, hidden_channels))
        self.blocks = nn.ModuleList(Block(hidden_channels, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(hidden_channels, eps=1e-6)
        self.head = nn.Linear(hidden_channels, out_channels * (1 if output == "graph" else self.patch**2))
        self.to(device=device, dtype=dtype)
        if checkpoint is not None:
            self.load_checkpoint(checkpoint)

    def forward(self, adjacency: Tensor, x: Tensor | None = None, lengths: Tensor | None = None) -> Tensor:
        owner, parameter = "ImageTransformerOnGraphs", self.cls_token
        if self.edge_channels == 1 and isinstance(adjacency, Tensor) and adjacency.dim() == 3:
            adjacency = adjacency[..., None]
        edges = f"(B, n, n, edge_channels={self.edge_channels})"
        check_nodes(owner, "adjacency", adjacency, (None, None, None, self.edge_channels), edges, parameter)
        batch, nodes = adjacency.shape[:2]
        check_nodes(owner, "adjacency", adjacency, (batch, nodes, nodes, self.edge_channels), edges, parameter)
        if (x is None) != (self.node_channels == 0):
            raise ValueError(f"{owner}: x must {'not ' if x is not None else ''}be given with node_channels={self.node_channels}")
        mask = node_mask(owner, lengths, adjacency)
        if nodes > self.max_nodes:
            raise ValueError(f"{owner}: adjacency must have at most max_nodes={self.max_nodes} nodes, got {nodes}")
        pairs = mask[:, :, None] & mask[:, None, :]
        pixels = adjacency
        if x is not None:
            check_nodes(owner, "x", x, (batch, nodes, self.node_channels), f"(B={batch}, n={nodes}, C={self.node_channels})", parameter)
            rows = x[:, :, None].expand(-1, -1, nodes, -1)
            pixels = torch.cat([adjacency, rows, rows.transpose(1, 2)], -1)
        side = self.grid * self.patch
        image = torch.nn.functional.pad(cleared(pixels, pairs).permute(0, 3, 1, 2), (0, side - nodes, 0, side - nodes))
        tokens = self.patch_embed(image).flatten(2).mT
        tokens = torch.cat([self.cls_token.expand(batch, -1, -1), tokens], 1) + self.pos_embed
        for block in self.blocks:
            tokens = block(tokens)
        if self.output == "graph":
            return self.head(self.norm(tokens[:, 0]))
        grid, patch = self.grid, self.patch
        values = self.head(self.norm(tokens[:, 1:])).unflatten(-1, (patch, patch, self.out_channels)).unflatten(1, (grid, grid))
        values = values.permute(0, 1, 3, 2, 4, 5).reshape(batch, side, side, self.out_channels)[:, :nodes, :nodes]
        count = mask.sum(1).clamp(min=1).view(-1, 1, 1)
        return cleared(cleared(values, pairs).sum(2) / count, mask)

    if TYPE_CHECKING:
        __call__ = forward

    def load_checkpoint(self, checkpoint: str | Path) -> Loaded:
        """Takes over the transformer of a checkpoint, under the names of timm ("blocks.0.attn.qkv.weight") or of transformers' ViT.

        Patches and head are taken over where their shapes agree, which they do between graphs of one size and seldom otherwise.

        Args:
            checkpoint: a file of tensors by name as `torch.save` writes it, plain or under "model" or "state_dict"; or a .safetensors
                file, for which the package safetensors is needed.

        Returns: which tensors were loaded, which are fresh, and which of the file were not used.
        Raises ValueError for a file without such a transformer, or with one of another size; the network is then unchanged.
        """
        owner, found = "ImageTransformerOnGraphs", _renamed(_read(Path(checkpoint)))
        own = self.state_dict()
        optional = [name for name in own if name.startswith(("patch_embed.", "head."))]
        for name, tensor in own.items():
            if name in optional:
                continue
            if name not in found:
                raise ValueError(f"{owner}: checkpoint must have a tensor {name!r}, {Path(checkpoint).name} has none")
            if found[name].shape != tensor.shape:
                raise ValueError(
                    f"{owner}: {name!r} of the checkpoint must have shape {tuple(tensor.shape)}, got {tuple(found[name].shape)}"
                )
        depth = {int(name.split(".")[1]) for name in found if name.startswith("blocks.")}
        if len(depth) != len(self.blocks):
            raise ValueError(f"{owner}: checkpoint must have layers={len(self.blocks)} layers, got {len(depth)}")
        fresh = [name for name in optional if name not in found or found[name].shape != own[name].shape]
        loaded = [name for name in own if name not in fresh]
        with torch.no_grad():
            for name in loaded:
                own[name].copy_(found[name])
        return Loaded(tuple(sorted(loaded)), tuple(sorted(fresh)), tuple(sorted(set(found) - set(loaded))))


def _unreadable(path: Path, expected: str, error: Exception) -> ValueError:
    what = f"{path.name} is {looks_like(path)} ({type(error).__name__})"
    return ValueError(
        f"ImageTransformerOnGraphs: checkpoint must be a whole file that {expected}, {what}; fetch it again, or save the state dict again"
    )


def _read(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise _unreadable(path, "safetensors wrote", error) from error
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (FileNotFoundError, PermissionError, IsADirectoryError):
        raise
    except Exception as error:  # torch.load raises what its unpickler and its archive raise
        raise _unreadable(path, "torch.save wrote, of tensors", error) from error
    for key in ("model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not any(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"ImageTransformerOnGraphs: checkpoint must hold tensors by name, {path.name} holds a {type(content).__name__}")
    return {name: value for name, value in content.items() if isinstance(value, Tensor)}


_NAMES = {
    "embeddings.cls_token": "cls_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection": "patch_embed.proj",
    "layernorm": "norm",
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "attention.output.dense": "attn.proj",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
}


def _renamed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The names of transformers' ViT as those of timm, with queries, keys and values in one matrix; timm's as they are."""
    if not any("encoder.layer." in name for name in tensors):
        return tensors
    made: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        name = name.removeprefix("vit.")
        if match := re.fullmatch(r"encoder\.layer\.(\d+)\.attention\.attention\.query\.(weight|bias)", name):
            parts = [tensors[old] for kind in ("query", "key", "value") for old in tensors if old.endswith(name.replace("query", kind))]
            made[f"blocks.{match[1]}.attn.qkv.{match[2]}"] = torch.cat(parts)
        elif re.fullmatch(r"encoder\.layer\.\d+\.attention\.attention\.(key|value)\.(weight|bias)", name):
            continue
        else:
            layer = re.match(r"encoder\.layer\.(\d+)\.", name)
            rest = name[layer.end() :] if layer else name
            stem, _, kind = rest.rpartition(".")
            stem = f"{_NAMES[stem]}.{kind}" if stem in _NAMES and kind in ("weight", "bias") else _NAMES.get(rest, rest)
            made[f"blocks.{layer[1]}.{stem}" if layer else stem] = tensor
    return made
