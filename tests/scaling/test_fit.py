"""Laws that are known, found again; optima against a search; findings of made-up studies whose answer is known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("scipy")
pytest.importorskip("mujoco")

from scaling.micro import MICRO

from isotypic.scaling import findings
from isotypic.scaling import fit as fits
from isotypic.scaling.findings import CONTRADICTED, REPRODUCED, UNDECIDED, Claim

N, D = (values.ravel() for values in np.meshgrid(np.geomspace(1e4, 1e6, 4), np.geomspace(1e5, 1e7, 4)))


def law(e: float, a: float, alpha: float, b: float, beta: float) -> Any:
    return lambda n, d: e + a * n**-alpha + b * d**-beta


TRUE, PLAIN = law(0.05, 30, 0.5, 20, 0.35), law(0.1, 12, 0.35, 60, 0.35)


def test_a_law_is_found_again() -> None:
    found = fits.fit(N, D, TRUE(N, D), bootstrap=2)
    about = found.law.about()
    for name, value in {"E": 0.05, "A": 30, "a": 0.5, "B": 20, "b": 0.35}.items():
        assert about[name] == pytest.approx(value, rel=1e-3)
    assert found.error < 1e-6 and found.explained == pytest.approx(1)
    np.testing.assert_allclose(found.law(N, D), TRUE(N, D), rtol=1e-5)


def test_intervals_hold_the_truth_and_outliers_do_not_count() -> None:
    random, inside = np.random.default_rng(0), 0
    for _ in range(6):
        found = fits.fit(N, D, TRUE(N, D) * np.exp(0.02 * random.normal(size=16)), bootstrap=40)
        low, high = fits.interval([sample.b for sample in found.samples])
        inside += low <= 0.35 <= high
        assert high - low < 0.3
    assert inside >= 4
    loss = TRUE(N, D)
    loss[5] *= 1.5
    assert fits.fit(N, D, loss, bootstrap=1).law.b == pytest.approx(0.35, rel=0.05)


def test_the_optimum_is_the_best_split() -> None:
    found, price = fits.fit(N, D, TRUE(N, D), bootstrap=1).law, fits.price([1e4, 1e5, 1e6], [3e5, 3e5 * 10**0.8, 3e5 * 10**1.6])
    assert price.g == pytest.approx(0.8) and float(price(1e5)) == pytest.approx(3e5 * 10**0.8)
    best = fits.optimum(found, price, [1e12, 1e14])
    for k, compute in enumerate((1e12, 1e14)):
        n = np.geomspace(1e2, 1e9, 100_001)
        loss = TRUE(n, compute / price(n))
        assert best.loss[k] == pytest.approx(loss.min(), rel=1e-3)
        assert best.n[k] == pytest.approx(n[loss.argmin()], rel=0.05)
        assert best.d[k] * price(best.n[k]) == pytest.approx(compute)
    assert (
        np.log(best.n[1] / best.n[0]) / np.log(100)
        == pytest.approx(best.size_exponent)
        == pytest.approx(0.35 / (0.5 + 0.8 * 0.35), rel=1e-3)
    )


def test_what_cannot_be_fitted() -> None:
    with pytest.raises(ValueError, match="at least 6 runs of 3 sizes and 3 durations, got 4 of 2 and 2"):
        fits.fit([1, 1, 2, 2], [1, 2, 1, 2], [1, 1, 1, 1])
    with pytest.raises(ValueError, match="fit: loss must be"):
        fits.fit(N, D, -TRUE(N, D))


def test_claims() -> None:
    assert findings.above("", 2, 1.1, 3, 1).verdict == REPRODUCED
    assert findings.above("", 2, 0.9, 3, 1).verdict == UNDECIDED
    assert findings.above("", 0.5, 0.2, 0.9, 1).verdict == CONTRADICTED
    assert findings.within("", 1, 0.5, 2, 0.9, 1.1).verdict == UNDECIDED  # wider than the claim
    assert findings.within("", 1, 0.95, 1.05, 0.9, 1.1).verdict == REPRODUCED
    assert findings.outside("", 1, 1.0, 1.2, -0.1, 0.1).verdict == REPRODUCED
    assert findings.outside("", 0, -0.05, 0.05, -0.1, 0.1).verdict == CONTRADICTED
    claims = {verdict: Claim("", 0, 0, 0, verdict) for verdict in (REPRODUCED, UNDECIDED, CONTRADICTED)}
    assert findings.together([claims[REPRODUCED]] * 2) == REPRODUCED
    assert findings.together([claims[REPRODUCED], claims[UNDECIDED]]) == UNDECIDED
    assert findings.together([claims[UNDECIDED], claims[CONTRADICTED]]) == CONTRADICTED
    assert findings.together([]) == UNDECIDED


def study(
    gatr: Any, plain: Any, augmented: Any, few: dict[str, float], noise: float = 0.003, **changes: Any
) -> dict[str, findings.Finding]:
    """The findings of results that follow these laws; `few` are factors of the losses with few samples."""
    preset = replace(MICRO, repeat_seeds=3, bootstrap=40, **changes)
    random, results, costs = np.random.default_rng(0), [], {}
    sizes = {"S": 1e4, "M": 1e5, "L": 1e6}
    preset = replace(preset, tokens=(100_000, 1_000_000, 10_000_000), repeat_tokens=(10_000_000,))
    laws = {"gatr": gatr, "transformer": plain, "augmented": augmented}
    for run in preset.runs():
        n = sizes[run.size] * (1 if run.method == "gatr" else 1.1)
        loss = laws[run.method](n, run.tokens) * (few[run.method] if run.unique == preset.unique[0] else 1)
        results.append(
            {
                **{name: getattr(run, name) for name in ("method", "size", "unique", "seed")},
                **{"wanted_tokens": run.tokens, "tokens": run.tokens, "parameters": n, "epochs": 9.0},
                "loss": float(loss * np.exp(noise * random.normal())),
            }
        )
        costs[f"{run.method}-{run.size}"] = {"parameters": n, "nominal": 60 * n, "sparse": 6 * n, "executed": 7 * n, "seconds": 1e-9 * n}
    methods = {method: findings.scaled(preset, results, costs, method) for method in laws}
    made = findings.findings(preset, results, costs, methods)
    assert len(made) == 9
    return {"data": made[0], "compute": made[1], "split": made[5]}


def test_a_study_like_the_paper() -> None:
    made = study(TRUE, PLAIN, PLAIN, {"gatr": 1.0, "transformer": 2.0, "augmented": 0.35})
    assert made["data"].verdict == REPRODUCED
    assert made["compute"].claims[2].verdict == REPRODUCED and made["compute"].claims[2].value > 1.2
    assert made["split"].verdict == REPRODUCED and made["split"].claims[0].value == pytest.approx(0.41 - 0.5, abs=0.03)


def test_a_study_that_contradicts() -> None:
    worse = law(0.05, 90, 0.5, 60, 0.35)
    made = study(worse, TRUE, TRUE, {"gatr": 1.0, "transformer": 1.0, "augmented": 1.0})
    assert made["data"].verdict == CONTRADICTED and made["data"].claims[0].high < 1
    assert made["compute"].verdict == CONTRADICTED
    same = study(TRUE, TRUE, TRUE, {"gatr": 1.0, "transformer": 1.0, "augmented": 1.0}, noise=1e-4)
    assert same["split"].verdict == CONTRADICTED


def test_a_noisy_study_decides_nothing() -> None:
    made = study(TRUE, TRUE, TRUE, {"gatr": 1.0, "transformer": 1.1, "augmented": 1.0}, noise=0.3)
    assert made["data"].verdict == UNDECIDED and made["split"].verdict == UNDECIDED


def test_one_seed_has_no_interval() -> None:
    groups = {("gatr", 16, 1): [1.0], ("transformer", 16, 1): [5.0]}
    value, low, high = findings.log_ratio(groups, ("transformer", 16, 1), ("gatr", 16, 1))
    assert value == pytest.approx(5) and low == 0 and high == np.inf
