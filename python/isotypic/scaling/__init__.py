"""Does equivariance matter at scale? A study that anyone can rerun: GATr and a plain transformer on rigid bodies, over sizes, training
tokens and training sets, with compute counted in nominal, sparse and executed flops and in seconds.

    python -m isotypic scaling run  --preset tiny --out DIR     data, runs, costs; again after a kill, and it goes on where it was
    python -m isotypic scaling fit  --preset tiny --out DIR     L(N, D), frontiers, findings
    python -m isotypic scaling plot --preset tiny --out DIR     scaling.png, scaling.html

It needs isotypic[scaling]. The modules, in the order in which they are used: `bodies` simulates scenes, `shards` keeps them, `samples`
makes tokens of them; `presets` lists the runs, `networks` builds what `train` trains, `sweep` does all of it; `counters` and `cost` say
what it takes; `fit`, `findings`, `analysis` and `report` say what came out.
"""
