"""Networks as data, digits to make them from, and trajectories of charged bodies.

`NeuralField` says what packed networks (N, P) compute, `fit_fields` fits them (`image_grid` has the coordinates, `psnr` the quality),
`WeightSet` keeps them in one file, `weight_augment` changes them, `align_neurons` brings them into one order, `collate` makes batches.

`exp`, `graph8c` (`connected_graphs`) and `automorphism_set` are graphs that are hard to tell apart, made on the spot (`Graphs`);
`canonical_forms`, `canonical_order`, `wl_colours` and `orbits` say exactly how alike small graphs are.

`mnist` and `rotated_mnist` give digits for examples and tests, from an installed package and never from a network; `rotate` turns images.
`charged_n_body` simulates charged particles.

`GibbsProcess`, `smoke_fields` and `north_america_temperature` are what neural processes are tried on; `Tasks` are contexts and targets,
`field_tasks` makes them of fields.
"""

from isotypic._public import in_public
from isotypic.data import weight_augment
from isotypic.data.collate import collate
from isotypic.data.digits import Digits, mnist, rotate, rotated_mnist
from isotypic.data.fitting import Fitted, fit_fields, psnr
from isotypic.data.graph_sets import automorphism_set, connected_graphs, exp, graph8c
from isotypic.data.graphs import Graphs, canonical_forms, canonical_order, orbits, wl_colours
from isotypic.data.n_body import NBody, charged_n_body
from isotypic.data.neural_field import NeuralField, image_grid
from isotypic.data.processes.gibbs import GibbsProcess
from isotypic.data.processes.smoke import Smoke, smoke_fields
from isotypic.data.processes.tasks import Tasks, field_tasks
from isotypic.data.processes.temperature import TemperatureFields, north_america_temperature
from isotypic.data.weight_align import align_neurons
from isotypic.data.weight_set import WeightSet

__all__ = [
    "Digits",
    "Fitted",
    "GibbsProcess",
    "Graphs",
    "NBody",
    "NeuralField",
    "Smoke",
    "Tasks",
    "TemperatureFields",
    "WeightSet",
    "align_neurons",
    "automorphism_set",
    "canonical_forms",
    "canonical_order",
    "charged_n_body",
    "collate",
    "connected_graphs",
    "exp",
    "field_tasks",
    "fit_fields",
    "graph8c",
    "image_grid",
    "mnist",
    "north_america_temperature",
    "orbits",
    "psnr",
    "rotate",
    "rotated_mnist",
    "smoke_fields",
    "weight_augment",
    "wl_colours",
]

in_public(globals())


def __dir__() -> list[str]:
    return __all__
