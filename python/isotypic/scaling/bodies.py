"""Scenes of rigid bodies, simulated by MuJoCo: dropped on a floor, or flying together in free space.

A body is a box, sphere, cylinder, capsule or ellipsoid of density 1000 kg/m^3, known by its half extents along its own axes. Lengths are
metres, times seconds.

- "floor": 3 to 10 bodies over the plane z = 0, under gravity, with random poses and velocities.
- "free": no plane and no gravity; bodies fly towards each other. What is drawn has no direction, and friction cones are round, so
  the law of the trajectories is that of their rotated and mirrored copies.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

SHAPES = ("box", "sphere", "cylinder", "capsule", "ellipsoid")
KINDS = ("floor", "free")
GRAVITY = 9.81
MAX_SPEED = 50.0  # a scene with a faster body has diverged


@dataclass(frozen=True)
class Scenes:
    """What scenes are drawn from. Scene i depends on these settings and i alone."""

    kind: str = "floor"
    seed: int = 0
    least: int = 3
    most: int = 10
    """Bodies in a scene."""
    frames: int = 25
    every: int = 10
    """Steps from one frame to the next."""
    dt: float = 0.004

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"Scenes: kind must be one of {', '.join(KINDS)}, got {self.kind!r}")
        if not 1 <= self.least <= self.most:
            raise ValueError(f"Scenes: least and most must be numbers of bodies with 1 <= least <= most, got {self.least} and {self.most}")
        if self.frames < 2 or self.every < 1 or not self.dt > 0:
            raise ValueError(
                f"Scenes: frames must be at least 2, every at least 1 and dt positive, got {self.frames}, {self.every}, {self.dt}"
            )

    def record(self) -> np.dtype[Any]:
        """A row: one body over all frames. Velocities are those of the centre and of the rotation, in the frame of the world."""
        return np.dtype(
            [
                ("scene", "<i8"),
                ("shape", "<i4"),
                ("extents", "<f4", (3,)),
                ("position", "<f4", (self.frames, 3)),
                ("rotation", "<f4", (self.frames, 3, 3)),
                ("velocity", "<f4", (self.frames, 3)),
                ("spin", "<f4", (self.frames, 3)),
            ]
        )

    def scene(self, index: int) -> NDArray[Any]:
        """One row for each body of scene `index`. A scene that diverges is drawn again."""
        for attempt in range(100):
            start = self._draw(np.random.default_rng([self.seed, index, attempt]))
            rows = simulate(self, start)
            if np.isfinite(rows["velocity"]).all() and np.abs(rows["velocity"]).max() < MAX_SPEED:
                rows["scene"] = index
                return rows
        raise RuntimeError(f"scene {index} of {self} diverged 100 times")

    def about(self) -> dict[str, Any]:
        return asdict(self)

    def _draw(self, random: np.random.Generator) -> list[Body]:
        count = int(random.integers(self.least, self.most + 1))
        bodies: list[Body] = []
        spread = 0.8
        while len(bodies) < count:
            shape = SHAPES[int(random.integers(len(SHAPES)))]
            sizes = random.uniform(0.1, 0.25, 3)
            extents = half_extents(shape, sizes)
            radius = float(np.linalg.norm(extents))
            position = _in_ball(random, 3 if self.kind == "free" else 2) * spread
            velocity = random.normal(0, 0.5, 3)
            if self.kind == "free":
                velocity -= 2.5 * position
            else:
                position = np.array([position[0], position[1], radius + random.uniform(0.02, 1.2)])
            spread *= 1.01  # so that there is room for every body at last
            if all(np.linalg.norm(position - other.position) > radius + other.radius for other in bodies):
                bodies.append(Body(shape, sizes, extents, position, _quaternion(random), velocity, random.normal(0, 3, 3)))
        return bodies


@dataclass(frozen=True)
class Body:
    """A body at the start of its scene. `spin` is the angular velocity in the frame of the body."""

    shape: str
    sizes: NDArray[Any]
    extents: NDArray[Any]
    position: NDArray[Any]
    quaternion: NDArray[Any]
    velocity: NDArray[Any]
    spin: NDArray[Any]

    @property
    def radius(self) -> float:
        return float(np.linalg.norm(self.extents))


def half_extents(shape: str, sizes: NDArray[Any]) -> NDArray[Any]:
    """Along the body's axes. `sizes` are MuJoCo's: half lengths; a radius; a radius and half the length of the axis."""
    if shape == "sphere":
        return np.full(3, sizes[0])
    if shape == "cylinder":
        return np.array([sizes[0], sizes[0], sizes[1]])
    if shape == "capsule":
        return np.array([sizes[0], sizes[0], sizes[0] + sizes[1]])
    return np.array(sizes)


def _in_ball(random: np.random.Generator, dimension: int) -> NDArray[Any]:
    direction = random.normal(size=dimension)
    return direction / np.linalg.norm(direction) * random.uniform() ** (1 / dimension)


def _quaternion(random: np.random.Generator) -> NDArray[Any]:
    drawn = random.normal(size=4)
    return drawn / np.linalg.norm(drawn)


def _numbers(values: Any) -> str:
    return " ".join(repr(float(value)) for value in values)


def simulate(scenes: Scenes, bodies: list[Body]) -> NDArray[Any]:
    """Rows for the bodies, from their start at frame 0.

    Raises ModuleNotFoundError without mujoco.
    """
    try:
        import mujoco
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError('rigid bodies need mujoco: pip install "isotypic[scaling]"', name=error.name) from error
    floor = scenes.kind == "floor"
    plane = '<geom type="plane" size="0 0 1"/>' if floor else ""
    parts = "".join(
        f'<body pos="{_numbers(body.position)}" quat="{_numbers(body.quaternion)}"><freejoint/>'
        f'<geom type="{body.shape}" size="{_numbers(body.sizes)}" density="1000"/></body>'
        for body in bodies
    )
    model = mujoco.MjModel.from_xml_string(
        f'<mujoco><option timestep="{scenes.dt}" cone="elliptic" gravity="0 0 {-GRAVITY if floor else 0}"/>'
        f"<worldbody>{plane}{parts}</worldbody></mujoco>"
    )
    data = mujoco.MjData(model)
    rows = np.zeros(len(bodies), scenes.record())
    for row, body in zip(rows, bodies, strict=True):
        row["shape"], row["extents"] = SHAPES.index(body.shape), body.extents
    speeds = data.qvel.reshape(len(bodies), 6)
    for speed, body in zip(speeds, bodies, strict=True):
        speed[:3], speed[3:] = body.velocity, body.spin
    mujoco.mj_forward(model, data)
    for frame in range(scenes.frames):
        if frame:
            mujoco.mj_step(model, data, scenes.every)
            mujoco.mj_kinematics(model, data)  # a step ends with poses of its beginning
        rotation = data.xmat[1:].reshape(-1, 3, 3)
        rows["position"][:, frame], rows["rotation"][:, frame] = data.xpos[1:], rotation
        rows["velocity"][:, frame] = speeds[:, :3]
        rows["spin"][:, frame] = np.einsum("bij,bj->bi", rotation, speeds[:, 3:])
    return rows
