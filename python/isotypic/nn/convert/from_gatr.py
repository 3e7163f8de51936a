"""The published geometric algebra transformer, from its weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from isotypic.nn.convert import _convert_algebra as convert

if TYPE_CHECKING:
    from isotypic.models.gatr import GATr

OWNER = "from_gatr"


def from_gatr(state_dict: Any) -> GATr:
    """`models.GATr` with the weights of the published network of G(3,0,1), and its outputs.

    Args:
        state_dict: of a `gatr.GATr` with scalars, with keys and values shared by all heads or not. All counts are read off its entries.

    Returns: a model in evaluation mode, of the dtype and on the device of the entries.
    Raises TypeError for what is no state dict; ValueError, with the names, for entries that are missing or have no place: positional
    encodings, channels inserted again into queries and keys, MLPs of more than two layers.

    J. Brehmer, P. de Haan, S. Behrends, T. Cohen, "Geometric Algebra Transformer", NeurIPS 2023.

    >>> from_gatr({})
    Traceback (most recent call last):
    ValueError: from_gatr: the state dict has no entry linear_in.weight
    """
    from isotypic.models.gatr import GATr

    source = convert.Source(OWNER, state_dict)
    blocks = source.count("blocks")
    state: dict[str, Tensor] = {}
    first, last = convert.linear(source, ["linear_in"]), convert.linear(source, ["linear_out"])
    convert.put(state, "linear_in", first)
    convert.put(state, "linear_out", last)
    in_mv, mv, in_s, s = convert.channels(first)
    heads, multi_query, ratio, mlp_ratio = 1, True, 1, 2
    for i in range(blocks):
        theirs, ours = f"blocks.{i}", f"blocks.{i}"
        log_weights = source.take(f"{theirs}.attention.attention.log_weights")
        state[f"{ours}.attention.log_weight"] = log_weights.flatten(1)
        heads = log_weights.shape[0]
        module = f"{theirs}.attention.qkv_module"
        multi_query = source.has(f"{module}.q_linear")
        if multi_query:
            layers, parts = [f"{module}.{name}_linear" for name in "qkv"], [1, 0, 0]
        else:
            layers, parts = [f"{module}.in_linear"], [3]
        qkv = convert.linear(source, layers, parts, heads)
        if qkv["weight"].shape[1] != mv:
            raise ValueError(f"{OWNER}: {module} must take {mv} channels, got {qkv['weight'].shape[1]}: channels that are inserted again")
        convert.put(state, f"{ours}.attention.linear_qkv", qkv)
        ratio = _ratio(state[f"{ours}.attention.log_weight"].shape[1], mv, heads)
        convert.put(state, f"{ours}.attention.linear_out", convert.linear(source, [f"{theirs}.attention.out_linear"]))
        bilinear = f"{theirs}.mlp.layers.0"
        factors = [f"{bilinear}.linear_{name}" for name in ("left", "right", "join_left", "join_right")]
        convert.put(state, f"{ours}.mlp.bilinear.linear_in", convert.linear(source, factors))
        out = convert.linear(source, [f"{bilinear}.linear_out"])
        mlp_ratio = out["weight"].shape[0] // mv
        convert.put(state, f"{ours}.mlp.bilinear.linear_out", out)
        convert.put(state, f"{ours}.mlp.linear", convert.linear(source, [convert.linear_layer(source, f"{theirs}.mlp.layers")]))
    source.finish()
    _, out_mv, _, out_s = convert.channels(last)
    model = GATr(
        in_mv,
        out_mv,
        mv,
        in_s,
        out_s,
        s,
        blocks,
        heads,
        multi_query=multi_query,
        attention_ratio=ratio,
        mlp_ratio=mlp_ratio,
        scalar_activation="gelu",
        trivectors=False,
    )
    return convert.load(model, state).eval()


def _ratio(head_channels: int, mv_channels: int, heads: int) -> int:
    """The factor by which the channels of all heads are more than those of the input."""
    for ratio in range(1, head_channels * heads + 2):
        if max(ratio * mv_channels // heads, 1) == head_channels:
            return ratio
    raise ValueError(f"{OWNER}: {head_channels} channels of each of {heads} heads are no multiple of {mv_channels} channels")
