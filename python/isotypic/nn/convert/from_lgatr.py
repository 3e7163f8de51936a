"""The Lorentz-equivariant geometric algebra transformer of `lgatr`, from a model or its weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from isotypic.nn.convert import _convert_algebra as convert

if TYPE_CHECKING:
    from isotypic.models.gatr import GATr

OWNER = "from_lgatr"
ACTIVATIONS = {"gelu": "gelu_tanh", "relu": "relu", "sigmoid": "sigmoid", "tanh": "tanh", "silu": "silu"}


def from_lgatr(model: Any, config: Mapping[str, Any] | None = None) -> GATr:
    """`models.GATr` in G(1,3) with the weights of an `lgatr.LGATr`, and its outputs and gradients.

    Args:
        model: an `lgatr.LGATr` of version 2, or its state dict.
        config: with a state dict, what does not show in it, in the names of lgatr's constructor: {"attention": {"num_heads": 8, ...},
            "mlp": {"nonlinearity": "gelu"}, "dropout_prob": None}. What is not given has lgatr's default.

    Returns: a model in the mode of the given one (evaluation for a state dict), of the dtype and on the device of its parameters.
    Raises TypeError for other models, slim and conditional ones among them; ValueError, with the name, for what `models.GATr` does not
    have: channels inserted again, `bivector=False`, `geometric_product=False`, MLPs of more or fewer than two layers.

    J. Spinner et al., "Lorentz-Equivariant Geometric Algebra Transformers for High-Energy Physics", NeurIPS 2024.

    >>> from_lgatr({}, {})
    Traceback (most recent call last):
    ValueError: from_lgatr: the state dict has no entry linear_in.weight
    """
    from isotypic.models.gatr import GATr

    training = False
    if isinstance(model, nn.Module):
        if type(model).__name__ not in ("LGATr", "OptimizedModule") or not hasattr(model, "linear_in"):
            raise TypeError(f"{OWNER}: model must be an lgatr.LGATr, got {type(model).__name__}")
        if config is not None:
            raise ValueError(f"{OWNER}: config must be None with a model, which has it")
        config, training, state_dict = _config_of(model), model.training, model.state_dict()
    else:
        state_dict = model
        if config is None:
            raise ValueError(f"{OWNER}: config must be given with a state dict, which does not tell the number of heads")
    settings = _checked(config)
    source = convert.Source(OWNER, state_dict)
    blocks = source.count("blocks")
    state: dict[str, Tensor] = {}
    first, last = convert.linear(source, ["linear_in"]), convert.linear(source, ["linear_out"])
    convert.put(state, "linear_in", first)
    convert.put(state, "linear_out", last)
    in_mv, mv, in_s, s = convert.channels(first)
    heads, multi_query = settings["num_heads"], source.has("blocks.0.attention.qkv_module.q_linear")
    affine, head_scale, mlp_ratio = source.has("blocks.0.norm1.weight_mv"), source.has("blocks.0.attention.head_scale"), 4
    for i in range(blocks):
        at = f"blocks.{i}"
        for theirs, ours in (("norm1", "norm_attention"), ("norm2", "norm_mlp")):
            for name in ("weight_mv", "weight_s"):
                if f"{at}.{theirs}.{name}" in source.left:
                    state[f"{at}.{ours}.{name}"] = source.take(f"{at}.{theirs}.{name}")
        module = f"{at}.attention.qkv_module"
        layers = [f"{module}.{name}_linear" for name in "qkv"] if multi_query else [f"{module}.in_linear"]
        qkv = convert.linear(source, layers, [1, 0, 0] if multi_query else [3], heads)
        if qkv["weight"].shape[1] != mv:
            raise ValueError(f"{OWNER}: reinsert_mv_channels must be None, got layers of {qkv['weight'].shape[1]} instead of {mv} channels")
        convert.put(state, f"{at}.attention.linear_qkv", qkv)
        if head_scale:
            state[f"{at}.attention.head_scale"] = source.take(f"{at}.attention.head_scale")
        convert.put(state, f"{at}.attention.linear_out", convert.linear(source, [f"{at}.attention.out_linear"]))
        bilinear = f"{at}.mlp.layers.0"
        if not source.has(f"{bilinear}.linear_left"):
            raise ValueError(f"{OWNER}: geometric_product must be True, got a network without products")
        factors = [f"{bilinear}.linear_left", f"{bilinear}.linear_right"]
        convert.put(state, f"{at}.mlp.bilinear.linear_in", convert.linear(source, factors))
        out = convert.linear(source, [f"{bilinear}.linear_out"])
        mlp_ratio = out["weight"].shape[0] // mv
        convert.put(state, f"{at}.mlp.bilinear.linear_out", out)
        convert.put(state, f"{at}.mlp.linear", convert.linear(source, [convert.linear_layer(source, f"{at}.mlp.layers")]))
    source.finish()
    _, out_mv, _, out_s = convert.channels(last)
    result = GATr(
        in_mv,
        out_mv,
        mv,
        in_s,
        out_s,
        s,
        blocks,
        heads,
        "sta",
        checkpoint=settings["checkpoint_blocks"],
        subgroup=first["weight"].shape[2] == 10,
        multi_query=multi_query,
        attention_ratio=settings["attn_ratio"],
        mlp_ratio=mlp_ratio,
        head_scale=head_scale,
        affine=affine,
        activation=ACTIVATIONS[settings["nonlinearity"]],
        dropout=settings["dropout_prob"] or 0.0,
    )
    return convert.load(result, state).train(training)


def _config_of(model: Any) -> dict[str, Any]:
    """The arguments of the constructor that do not show in the state dict."""
    primitives = model.primitives
    config: dict[str, Any] = {
        "primitives": {name: getattr(primitives, name) for name in ("bivector", "geometric_product")},
        "reinsert_mv_channels": model._reinsert_mv_channels,
        "reinsert_s_channels": model._reinsert_s_channels,
        "checkpoint_blocks": model._checkpoint_blocks,
    }
    if len(model.blocks):
        block = model.blocks[0]
        attention = block.attention.qkv_module.config
        config["attention"] = {name: getattr(attention, name) for name in ("num_heads", "attn_ratio")}
        gates = [layer.nonlinearity for layer in block.mlp.layers if type(layer).__name__ == "ScalarGatedNonlinearity"]
        names = [getattr(getattr(gate, "func", gate), "__name__", "?") for gate in gates]
        config["mlp"] = {"num_layers_mlp": 1 + len(names), "nonlinearity": names[0] if names else "gelu"}
        drops = [layer._dropout_prob for layer in block.mlp.layers if type(layer).__name__ == "GradeDropout"]
        config["dropout_prob"] = drops[0] if drops else None
    return config


def _checked(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that the network needs; what it does not have is refused."""
    if not isinstance(config, Mapping):
        raise TypeError(f"{OWNER}: config must be a mapping, got {type(config).__name__}")
    primitives, attention, mlp = (dict(config.get(name) or {}) for name in ("primitives", "attention", "mlp"))
    refused = {
        "reinsert_mv_channels": (config.get("reinsert_mv_channels"), None),
        "reinsert_s_channels": (config.get("reinsert_s_channels"), None),
        "bivector": (primitives.get("bivector", True), True),
        "geometric_product": (primitives.get("geometric_product", True), True),
        "num_layers_mlp": (mlp.get("num_layers_mlp", 2), 2),
    }
    for name, (value, only) in refused.items():
        if value != only:
            raise ValueError(f"{OWNER}: {name} must be {only}, got {value!r}")
    nonlinearity = mlp.get("nonlinearity", "gelu")
    if nonlinearity not in ACTIVATIONS:
        raise ValueError(f"{OWNER}: nonlinearity must be one of {', '.join(ACTIVATIONS)}, got {nonlinearity!r}")
    return {
        "num_heads": attention.get("num_heads", 8),
        "attn_ratio": attention.get("attn_ratio", 1),
        "nonlinearity": nonlinearity,
        "dropout_prob": config.get("dropout_prob"),
        "checkpoint_blocks": bool(config.get("checkpoint_blocks", False)),
    }
