"""Networks on graphs and points: padding and batch mates never matter, and those that claim a symmetry have it, in float64."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from isotypic import models

DOUBLE = torch.float64
TOLERANCE = {"rtol": 0, "atol": 1e-11}


def graph(batch: int = 3, nodes: int = 7, channels: int = 2) -> dict[str, Tensor]:
    upper = torch.rand(batch, nodes, nodes, dtype=DOUBLE).gt(0.5).triu(1).to(DOUBLE)
    return {"x": torch.randn(batch, nodes, channels, dtype=DOUBLE), "adjacency": upper + upper.mT}


def cloud(batch: int = 3, nodes: int = 7, scalars: int = 2, vectors: int = 2, dim: int = 3) -> dict[str, Tensor]:
    return {
        "vectors": torch.randn(batch, nodes, vectors, dim, dtype=DOUBLE),
        "scalars": torch.randn(batch, nodes, scalars, dtype=DOUBLE),
    }


def bodies() -> dict[str, Tensor]:
    made = {name: torch.randn(3, 7, 3, dtype=DOUBLE) for name in ("positions", "velocities")}
    return {**made, "scalars": torch.randn(3, 7, 1, dtype=DOUBLE), "edges": torch.randn(3, 7, 7, 2, dtype=DOUBLE)}


SMALL: dict[str, Any] = {"max_nodes": 20, "hidden_channels": 16, "heads": 4, "layers": 2}
NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[], dict[str, Tensor]]]] = {
    "GIN": (lambda: models.GIN(2, 16, 3, dtype=DOUBLE), graph),
    "GIN, graph": (lambda: models.GIN(2, 16, 3, output="graph", dtype=DOUBLE), graph),
    "GIN, no virtual node": (lambda: models.GIN(2, 16, 3, virtual_node=False, dtype=DOUBLE), graph),
    "GraphTransformer": (lambda: models.GraphTransformer(2, **SMALL, dtype=DOUBLE), graph),
    "GraphTransformer, nodes": (lambda: models.GraphTransformer(2, **SMALL, output="node", dtype=DOUBLE), graph),
    "ImageTransformer": (lambda: models.ImageTransformerOnGraphs(2, **SMALL, grid=4, dtype=DOUBLE), graph),
    "ImageTransformer, nodes": (lambda: models.ImageTransformerOnGraphs(2, **SMALL, grid=4, output="node", dtype=DOUBLE), graph),
    "VNDGCNN": (lambda: models.VNDGCNN(2, 2, 8, out_scalars=2, out_vectors=3, dtype=DOUBLE), cloud),
    "VNDGCNN, neighbours": (lambda: models.VNDGCNN(2, 2, 8, out_scalars=2, out_vectors=3, neighbours=2, dtype=DOUBLE), cloud),
    "EGNN": (lambda: models.EGNN(1, 2, 16, layers=2, dtype=DOUBLE), bodies),
}
EQUIVARIANT = [name for name in NETWORKS if "Transformer" not in name]
POINTS = [name for name in NETWORKS if name.startswith(("VN", "EGNN"))]


def made(name: str) -> tuple[nn.Module, dict[str, Tensor]]:
    network, inputs = NETWORKS[name]
    model = network()
    # Small first weights would hide what a network does.
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model, inputs()


def outputs(result: Tensor | tuple[Tensor, ...]) -> list[Tensor]:
    return [result] if isinstance(result, Tensor) else list(result)


def padded(inputs: dict[str, Tensor], nodes: int, fill: float) -> dict[str, Tensor]:
    """The same inputs in larger tensors, with anything outside; axes of nodes are those of the original extent."""
    before = next(iter(inputs.values())).shape[1]
    grown = {}
    for name, value in inputs.items():
        axes = 2 if name in ("adjacency", "edges") else 1
        shape = [value.shape[0], *(nodes,) * axes, *value.shape[1 + axes :]]
        grown[name] = torch.full(shape, fill, dtype=value.dtype)
        grown[name][(slice(None), *(slice(before),) * axes)] = value
    return grown


@pytest.mark.parametrize("fill", [1e3, float("nan")])
@pytest.mark.parametrize("name", NETWORKS)
def test_padding_never_matters(name: str, fill: float) -> None:
    model, inputs = made(name)
    lengths = torch.full((3,), 7)
    larger = {key: value.requires_grad_() for key, value in padded(inputs, 11, fill).items()}
    found = outputs(model(**larger, lengths=lengths))
    for before, after in zip(outputs(model(**inputs)), found, strict=True):
        if after.dim() > 1 and after.shape[1] == 11:
            assert not after[:, 7:].any()
            after = after[:, :7]
        torch.testing.assert_close(after, before, **TOLERANCE)
    parameters = list(model.parameters())
    gradients = torch.autograd.grad(sum(each.sum() for each in found), [*larger.values(), *parameters], allow_unused=True)
    assert all(bool(gradient.isfinite().all()) for gradient in gradients if gradient is not None)


@pytest.mark.parametrize("name", NETWORKS)
def test_batch_mates_never_matter(name: str) -> None:
    model, inputs = made(name)
    lengths = torch.tensor([7, 3, 5])
    for training in (True, False):
        model.train(training)
        together = outputs(model(**inputs, lengths=lengths))
        for b in range(3):
            alone = outputs(model(**{key: value[b : b + 1] for key, value in inputs.items()}, lengths=lengths[b : b + 1]))
            for whole, one in zip(together, alone, strict=True):
                torch.testing.assert_close(whole[b : b + 1], one, **TOLERANCE)


@pytest.mark.parametrize("name", NETWORKS)
def test_permutations(name: str) -> None:
    model, inputs = made(name)
    order = torch.randperm(7)
    moved = {}
    for key, value in inputs.items():
        moved[key] = value[:, order][:, :, order] if key in ("adjacency", "edges") else value[:, order]
    pairs = zip(outputs(model(**inputs)), outputs(model(**moved)), strict=True)
    close = [torch.allclose(after, before[:, order] if before.shape[1:2] == (7,) else before, **TOLERANCE) for before, after in pairs]
    # The transformers are bases: they must not have the symmetry that they are to be given.
    assert all(close) if name in EQUIVARIANT else not any(close)
    assert all(bool(each.abs().max() > 1e-3) for each in outputs(model(**inputs)))


@pytest.mark.parametrize("proper", [True, False])
@pytest.mark.parametrize("name", POINTS)
def test_rotations_and_reflections(name: str, proper: bool) -> None:
    model, inputs = made(name)
    rotation = torch.linalg.qr(torch.randn(3, 3, dtype=DOUBLE)).Q
    if (rotation.det() > 0) != proper:
        rotation[:, 0] *= -1
    shift = torch.randn(3, dtype=DOUBLE) if name == "EGNN" else torch.zeros(3, dtype=DOUBLE)
    moved = {key: value @ rotation.T if value.shape[-1] == 3 else value for key, value in inputs.items()}
    if name == "EGNN":
        moved["positions"] = moved["positions"] + shift
        (x, nodes), (x_moved, nodes_moved) = model(**inputs), model(**moved)
        torch.testing.assert_close(x_moved, x @ rotation.T + shift, rtol=0, atol=1e-10)
        assert bool((x - inputs["positions"]).abs().max() > 1e-2)
    else:
        (nodes, x), (nodes_moved, x_moved) = model(**inputs), model(**moved)
        torch.testing.assert_close(x_moved, x @ rotation.T, rtol=0, atol=1e-10)
    torch.testing.assert_close(nodes_moved, nodes, rtol=0, atol=1e-10)


@pytest.mark.parametrize("dim", [2, 4])
def test_vector_neurons_in_other_dimensions(dim: int) -> None:
    model, inputs = models.VNDGCNN(2, 2, 8, out_vectors=dim, dtype=DOUBLE), cloud(dim=dim)
    rotation = torch.linalg.qr(torch.randn(dim, dim, dtype=DOUBLE)).Q
    expected = model(**inputs).vectors @ rotation.T
    torch.testing.assert_close(model(inputs["vectors"] @ rotation.T, inputs["scalars"]).vectors, expected, rtol=0, atol=1e-10)


def test_ties_between_neighbours_do_not_depend_on_the_order() -> None:
    corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=DOUBLE)] * 3)  # three nearest for each, and then three more
    vectors = torch.stack([corners, torch.randn(8, 3, dtype=DOUBLE)], 1)[None]
    order = torch.randperm(8)
    for neighbours in (2, 5):
        model = models.VNDGCNN(2, 0, 8, out_scalars=1, out_vectors=3, neighbours=neighbours, dtype=DOUBLE)
        nodes, frame = model(vectors)
        nodes_moved, frame_moved = model(vectors[:, order])
        torch.testing.assert_close(nodes_moved, nodes[:, order], **TOLERANCE)
        torch.testing.assert_close(frame_moved, frame, **TOLERANCE)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("nodes", [0, 1])
def test_degenerate_inputs_have_finite_gradients(name: str, nodes: int) -> None:
    model, inputs = made(name)
    for few in (nodes, 7):
        flat = {}
        for key, value in inputs.items():
            value = value[:, :few, :few] if key in ("adjacency", "edges") else value[:, :few]
            flat[key] = torch.zeros_like(value).requires_grad_()  # coincident points, no edges
        found = outputs(model(**flat))
        gradients = torch.autograd.grad(sum(each.sum() for each in found), [*flat.values(), *model.parameters()], allow_unused=True)
        assert all(bool(each.isfinite().all()) for each in [*found, *gradients] if each is not None)


def test_regular_graphs_look_alike_to_a_gin() -> None:
    ring = torch.eye(6, dtype=DOUBLE).roll(1, 0) + torch.eye(6, dtype=DOUBLE).roll(-1, 0)
    triangles = torch.block_diag(*[torch.ones(3, 3, dtype=DOUBLE) - torch.eye(3, dtype=DOUBLE)] * 2)
    model = models.GIN(1, 16, output="graph", dtype=DOUBLE)
    pair = torch.stack([ring, triangles])
    same = model(torch.ones(2, 6, 1, dtype=DOUBLE), pair)
    torch.testing.assert_close(same[0], same[1], **TOLERANCE)
    ids = models.GIN(6, 16, output="graph", dtype=DOUBLE)(torch.eye(6, dtype=DOUBLE).expand(2, 6, 6), pair)
    assert bool((ids[0] - ids[1]).abs() > 1e-4)


def hugging_face(tensors: dict[str, Tensor], layers: int) -> dict[str, Tensor]:
    """The tensors of a network, named as transformers' ViTForImageClassification names them; written from its module tree."""
    made = {
        "vit.embeddings.cls_token": tensors["cls_token"],
        "vit.embeddings.position_embeddings": tensors["pos_embed"],
        "vit.layernorm.weight": tensors["norm.weight"],
        "vit.layernorm.bias": tensors["norm.bias"],
        "classifier.weight": torch.zeros(10, 16),
    }
    for kind in ("weight", "bias"):
        made[f"vit.embeddings.patch_embeddings.projection.{kind}"] = torch.zeros(1)
        for layer in range(layers):
            ours, theirs = f"blocks.{layer}", f"vit.encoder.layer.{layer}"
            for index, part in enumerate(("query", "key", "value")):
                made[f"{theirs}.attention.attention.{part}.{kind}"] = tensors[f"{ours}.attn.qkv.{kind}"].chunk(3)[index]
            made[f"{theirs}.attention.output.dense.{kind}"] = tensors[f"{ours}.attn.proj.{kind}"]
            made[f"{theirs}.intermediate.dense.{kind}"] = tensors[f"{ours}.mlp.fc1.{kind}"]
            made[f"{theirs}.output.dense.{kind}"] = tensors[f"{ours}.mlp.fc2.{kind}"]
            made[f"{theirs}.layernorm_before.{kind}"] = tensors[f"{ours}.norm1.{kind}"]
            made[f"{theirs}.layernorm_after.{kind}"] = tensors[f"{ours}.norm2.{kind}"]
    return made


@pytest.mark.parametrize("style", ["timm", "transformers", "nested"])
def test_checkpoints_are_taken_over(tmp_path: Path, style: str) -> None:
    layers = 12  # so that layer 1 and layer 11 must be told apart
    sizes: dict[str, Any] = {"hidden_channels": 16, "heads": 4, "layers": layers, "grid": 4}
    trained = models.ImageTransformerOnGraphs(1, max_nodes=20, **sizes)
    for parameter in trained.parameters():
        nn.init.normal_(parameter)
    tensors = trained.state_dict()
    saved: Any = hugging_face(tensors, layers) if style == "transformers" else tensors
    torch.save({"model": saved} if style == "nested" else saved, tmp_path / "vit.pt")
    network = models.ImageTransformerOnGraphs(0, max_nodes=9, **sizes)  # other patches: they stay fresh
    before = network.patch_embed.proj.weight.clone()
    loaded, fresh, unused = network.load_checkpoint(tmp_path / "vit.pt")
    assert set(loaded) | set(fresh) == set(network.state_dict()) and "patch_embed.proj.weight" in fresh
    assert "blocks.11.attn.qkv.bias" in loaded
    assert torch.equal(network.patch_embed.proj.weight, before)
    for name in loaded:
        assert torch.equal(network.state_dict()[name], tensors[name]), name
    assert ("classifier.weight" in unused) == (style == "transformers")
    again = models.ImageTransformerOnGraphs(1, max_nodes=20, **sizes, checkpoint=tmp_path / "vit.pt")
    adjacency, x = torch.rand(2, 13, 13), torch.rand(2, 13, 1)
    if style != "transformers":
        torch.testing.assert_close(again(adjacency, x), trained(adjacency, x), rtol=0, atol=0)


def test_checkpoints_of_other_sizes_are_refused(tmp_path: Path) -> None:
    sizes: dict[str, Any] = {"max_nodes": 9, "hidden_channels": 16, "heads": 4, "layers": 2, "grid": 4}
    network = models.ImageTransformerOnGraphs(0, **sizes)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    wrong = {
        "layers=2 layers, got 3": models.ImageTransformerOnGraphs(0, **{**sizes, "layers": 3}),
        "'cls_token' of the checkpoint must have shape": models.ImageTransformerOnGraphs(
            0, max_nodes=9, hidden_channels=8, heads=4, grid=4
        ),
        "'pos_embed' of the checkpoint": models.ImageTransformerOnGraphs(0, **{**sizes, "grid": 3}),
        "must have a tensor 'cls_token'": nn.Linear(2, 2),
    }
    for message, other in wrong.items():
        torch.save(other.state_dict(), tmp_path / "vit.pt")
        with pytest.raises(ValueError, match=message):
            network.load_checkpoint(tmp_path / "vit.pt")
    torch.save([1, 2], tmp_path / "vit.pt")
    with pytest.raises(ValueError, match=r"must hold tensors by name, vit\.pt holds a list"):
        network.load_checkpoint(tmp_path / "vit.pt")
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("GIN", {"x": torch.zeros(3, 7, 5, dtype=DOUBLE)}, "GIN: x must have shape"),
    ("GIN", {"x": torch.zeros(3, 7, 2)}, "GIN: x must have the dtype"),
    ("GIN", {"adjacency": torch.zeros(3, 7, 6, dtype=DOUBLE)}, "GIN: adjacency must have shape"),
    ("GIN", {"lengths": torch.tensor([1, 2, 8])}, "GIN: lengths must be from 0 to n=7, got 1 to 8"),
    ("GIN", {"lengths": torch.tensor([1, 2])}, "GIN: lengths must be integers of shape"),
    ("GraphTransformer", {"x": None}, "GraphTransformer: x must be given"),
    ("GraphTransformer", {"adjacency": torch.zeros(3, 7, 6, dtype=DOUBLE)}, "GraphTransformer: adjacency must have shape"),
    ("ImageTransformer", {"adjacency": torch.zeros(3, 21, 21, dtype=DOUBLE)}, "adjacency must have at most max_nodes=20"),
    ("VNDGCNN", {"scalars": None}, "VNDGCNN: scalars must be given"),
    ("VNDGCNN", {"vectors": torch.zeros(3, 7, 3, dtype=DOUBLE)}, "VNDGCNN: vectors must have shape"),
    ("EGNN", {"velocities": None}, "EGNN: velocities must be given"),
    ("EGNN", {"edges": torch.zeros(3, 7, 7, 3, dtype=DOUBLE)}, "EGNN: edges must have shape"),
]


@pytest.mark.parametrize(("name", "changed", "message"), WRONG)
def test_wrong_inputs_are_refused(name: str, changed: dict[str, Any], message: str) -> None:
    model, inputs = made(name)
    with pytest.raises((ValueError, TypeError), match=message):
        model(**{**inputs, **changed})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: models.GIN(0), "GIN: in_channels must be a positive integer, got 0"),
        (lambda: models.GIN(1, output="edge"), "GIN: output must be 'node' or 'graph', got 'edge'"),  # type: ignore[arg-type]
        (lambda: models.GraphTransformer(1, max_nodes=0), "GraphTransformer: max_nodes must be"),
        (lambda: models.GraphTransformer(1, max_nodes=3, heads=5), "must be divisible"),
        (lambda: models.ImageTransformerOnGraphs(-1, max_nodes=3), "ImageTransformerOnGraphs: node_channels must be"),
        (lambda: models.VNDGCNN(1), "VNDGCNN: out_scalars or out_vectors must be positive"),
        (lambda: models.VNDGCNN(1, out_vectors=3, neighbours=0), "VNDGCNN: neighbours must be"),
        (lambda: models.EGNN(-1), "EGNN: in_scalars must be"),
    ],
)
def test_wrong_arguments_are_refused(make: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
