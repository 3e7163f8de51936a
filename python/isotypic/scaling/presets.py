"""Which runs a study has. A preset is a list of independent runs over sizes, training tokens and unique samples."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from isotypic._files import read_json
from isotypic.scaling.bodies import Scenes

METHODS = ("gatr", "transformer", "augmented")
"""GATr; a plain transformer; the same with samples moved by a random element of E(3) each time they are seen."""
ARCHITECTURES = {"gatr": "gatr", "transformer": "transformer", "augmented": "transformer"}

Sizes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Run:
    """One network trained once."""

    method: str
    size: str
    tokens: int
    unique: int
    """Samples in the training set."""
    seed: int

    @property
    def name(self) -> str:
        return f"{self.method}-{self.size}-{self.tokens}-{self.unique}-{self.seed}"


@dataclass(frozen=True)
class Preset:
    """A study.

    The runs for the fit of L(N, D) see new samples all the time, as far as `unique` goes: every size for every number of tokens. Those for
    data efficiency take one size, the longest training of `repeat_tokens`, and training sets of every number of samples.
    """

    name: str
    gatr: Sizes
    """For each size: multivector channels, scalar channels, blocks, heads."""
    transformer: Sizes
    """For each size: width, blocks, heads."""
    tokens: tuple[int, ...]
    """Training tokens of the runs for the fit."""
    unique: tuple[int, ...]
    """Sizes of training sets, ascending; the last one is that of the runs for the fit."""
    repeat_size: str
    repeat_tokens: tuple[int, ...]
    seeds: int = 1
    """Of the runs for the fit."""
    repeat_seeds: int = 2
    batch: int = 64
    """Samples in a batch, over all processes."""
    learning_rate: float = 1e-2
    warmup: float = 0.1
    """Part of the steps."""
    test_scenes: int = 128
    scenes: Scenes = field(default_factory=Scenes)
    device: str = "cpu"
    precision: str = "float32"
    checkpoint_every: int = 200
    log_every: int = 1
    bootstrap: int = 200
    about: str = ""

    def runs(self) -> list[Run]:
        """All runs, each once."""
        found: dict[str, Run] = {}
        for run in (*self._for_fit(), *self._for_data()):
            found.setdefault(run.name, run)
        return list(found.values())

    def _for_fit(self) -> Iterator[Run]:
        for method in METHODS:
            for size in self.sizes(method):
                for tokens in self.tokens:
                    for seed in range(self.seeds):
                        yield Run(method, size, tokens, self.unique[-1], seed)

    def _for_data(self) -> Iterator[Run]:
        for method in METHODS:
            for unique in self.unique:
                for tokens in self.repeat_tokens:
                    for seed in range(self.repeat_seeds):
                        yield Run(method, self.repeat_size, tokens, unique, seed)

    def sizes(self, method: str) -> Sizes:
        return self.gatr if ARCHITECTURES[method] == "gatr" else self.transformer

    @property
    def windows(self) -> int:
        """Samples that a scene gives."""
        from isotypic.scaling.samples import HORIZON

        return len(range(0, self.scenes.frames - HORIZON, HORIZON))

    @property
    def train_scenes(self) -> int:
        return -(-self.unique[-1] // self.windows)

    def check(self) -> None:
        """Raises ValueError for what could not be run."""
        if list(self.unique) != sorted(set(self.unique)) or self.unique[0] < 1:
            raise ValueError(f"preset {self.name}: unique must ascend from at least 1, got {self.unique}")
        if self.repeat_size not in self.gatr or self.repeat_size not in self.transformer:
            raise ValueError(f"preset {self.name}: repeat_size must be a size of both networks, got {self.repeat_size!r}")
        if min(*self.tokens, *self.repeat_tokens, self.batch, self.seeds, self.repeat_seeds) < 1:
            raise ValueError(f"preset {self.name}: tokens, batch and seeds must be positive")
        if self.precision not in ("float32", "bfloat16"):
            raise ValueError(f"preset {self.name}: precision must be float32 or bfloat16, got {self.precision!r}")


def read(path: Path) -> Preset:
    """A preset from a JSON file, as `write` makes it; what is not given is as in `tiny`.

    Raises ValueError for names that are none of a preset.
    """
    given = read_json(path, "a preset, a JSON file of what differs from `tiny`", "write one")
    known = {entry.name for entry in fields(Preset)}
    if not isinstance(given, dict) or (unknown := set(given) - known):
        raise ValueError(
            f"{path}: a preset has {', '.join(sorted(known))}; got {', '.join(sorted(unknown)) if isinstance(given, dict) else given!r}"
        )
    whole: dict[str, Any] = {**asdict(TINY), "name": path.stem, **given}
    for name in ("tokens", "unique", "repeat_tokens"):
        whole[name] = tuple(whole[name])
    for name in ("gatr", "transformer"):
        whole[name] = {size: tuple(numbers) for size, numbers in whole[name].items()}
    return Preset(**{**whole, "scenes": Scenes(**whole["scenes"])})


def write(preset: Preset) -> dict[str, Any]:
    return asdict(preset)


def get(name: str) -> Preset:
    """A preset by name, or from a file whose name ends in .json.

    Raises ValueError for another name.
    """
    made = read(Path(name)) if name.endswith(".json") else PRESETS.get(name)
    if made is None:
        raise ValueError(f"preset must be one of {', '.join(PRESETS)} or a .json file, got {name!r}")
    made.check()
    return made


TINY = Preset(
    name="tiny",
    about="Shows that everything runs; its intervals decide little.",
    gatr={"S": (4, 8, 1, 2), "M": (4, 16, 2, 2), "L": (8, 16, 3, 2)},
    transformer={"S": (16, 1, 2), "M": (32, 2, 2), "L": (48, 3, 2)},
    tokens=(8_000, 16_000, 32_000),
    unique=(64, 256, 1536),
    repeat_size="M",
    repeat_tokens=(32_000,),
    batch=32,
)
SMALL = Preset(
    name="small",
    about="Under a quarter of an hour on two cores.",
    gatr={"S": (4, 8, 1, 2), "M": (4, 16, 2, 2), "L": (8, 16, 3, 2), "XL": (12, 32, 4, 4)},
    transformer={"S": (16, 1, 2), "M": (32, 2, 2), "L": (48, 3, 2), "XL": (96, 4, 4)},
    tokens=(16_000, 32_000, 64_000, 128_000),
    unique=(64, 256, 1024, 6144),
    repeat_size="M",
    repeat_tokens=(32_000, 128_000),
    repeat_seeds=3,
    test_scenes=256,
)
GPU = Preset(
    name="gpu",
    about="One GPU, about half a day.",
    gatr={"S": (8, 16, 2, 4), "M": (8, 32, 4, 4), "L": (16, 64, 6, 8), "XL": (16, 128, 10, 8), "XXL": (32, 256, 10, 8)},
    transformer={"S": (64, 2, 4), "M": (128, 4, 4), "L": (192, 6, 8), "XL": (384, 8, 8), "XXL": (512, 12, 8)},
    tokens=(1_000_000, 4_000_000, 16_000_000, 64_000_000),
    unique=(1_000, 10_000, 100_000, 1_000_000),
    repeat_size="L",
    repeat_tokens=(16_000_000, 64_000_000),
    repeat_seeds=3,
    batch=512,
    learning_rate=1e-3,
    test_scenes=4096,
    device="cuda",
    precision="bfloat16",
    checkpoint_every=500,
    log_every=10,
    bootstrap=1000,
)
CLUSTER = Preset(
    name="cluster",
    about="Many GPUs: start it on each with --part, or under torchrun.",
    gatr={
        "S": (8, 32, 4, 4),
        "M": (16, 64, 6, 8),
        "L": (16, 128, 10, 8),
        "XL": (32, 256, 10, 8),
        "XXL": (64, 512, 12, 8),
        "XXXL": (96, 1024, 16, 16),
    },
    transformer={
        "S": (128, 4, 4),
        "M": (192, 6, 8),
        "L": (384, 8, 8),
        "XL": (512, 12, 8),
        "XXL": (768, 16, 12),
        "XXXL": (1280, 24, 16),
    },
    tokens=(16_000_000, 64_000_000, 256_000_000, 1_024_000_000, 4_096_000_000),
    unique=(10_000, 100_000, 1_000_000, 10_000_000),
    repeat_size="L",
    repeat_tokens=(256_000_000, 1_024_000_000),
    repeat_seeds=3,
    batch=4096,
    learning_rate=1e-3,
    test_scenes=16384,
    device="cuda",
    precision="bfloat16",
    checkpoint_every=500,
    log_every=50,
    bootstrap=2000,
)
PRESETS = {preset.name: preset for preset in (TINY, SMALL, GPU, CLUSTER)}
