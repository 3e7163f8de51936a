"""The layers between binary forms, under elements of SL(2, R), for what every layer has to survive."""

from __future__ import annotations

from layer_case import Case

LAYERS: dict[str, list[Case]] = {
    # Forms of degrees 0, 2 and 3 in scaled coordinates, under elements of SL(2, R).
    "Transvectants": [
        Case(dict(degrees_in=[0, 2, 3], max_degree=4, channels=2, out_channels=3), (4, 2, 8), "SL2"),
        Case(dict(degrees_in=[4], max_degree=6, channels=1, out_channels=2, degrees_out=[4], skip=False), (2, 1, 5), "SL2"),
    ],
}
