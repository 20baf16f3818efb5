"""A comparison as `ccn compare` writes it, with INVENTED numbers: nothing was trained for them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from lightning_ccn.studies.comparison.protocol import SENSITIVITY
from lightning_ccn.studies.comparison.statistics import over_values, paired, summary
from lightning_ccn.studies.comparison.study import STEPS

# name: title, family, the paper's AUC, and an invented AUC
SYSTEMS: dict[str, tuple[str, str, float | None, float]] = {
    "wide_deep": ("Wide&Deep", "plain", 0.6872, 0.659),
    "din": ("DIN", "plain", 0.7117, 0.664),
    "sim": ("SIM", "plain", 0.7276, 0.671),
    "dihn": ("DIHN", "intent", 0.7259, 0.670),
    "dian": ("DIAN", "intent", 0.7200, 0.668),
    "tan_bare": ("TAN w/o CM & TSI", "trigger", 0.7281, 0.672),
    "tan_bounded": ("TAN, bounded degree", "trigger", None, 0.674),
    "tan": ("TAN", "trigger", 0.7293, 0.676),
    "ccn_without_tsi": ("CCN w/o TSI", "contrast", 0.7315, 0.677),
    "ccn_without_attraction": ("CCN w/o attraction", "contrast", 0.7312, 0.678),
    "ccn_without_repulsion": ("CCN w/o repulsion", "contrast", 0.7309, 0.675),
    "ccn": ("CCN", "contrast", 0.7326, 0.680),
}
METRICS = {
    "auc": "AUC",
    "page_gauc": "page AUC",
    "logloss": "log loss",
    "normalized_entropy": "normalized entropy",
    "calibration": "calibration",
    "intent_auc": "intent AUC",
}
SIZES = ((2, 3), (4, 6), (7, 10), (11, 15), (16, 25), (26, 10**9))


def comparison(seeds: int = 5, systems: Iterable[str] = tuple(SYSTEMS)) -> dict[str, Any]:
    """Content of compare.json; the same arguments give the same numbers."""
    rng = np.random.default_rng(0)
    shared = rng.normal(0, 0.0012, seeds)  # what a seed adds to the AUC of every system
    found = [_system(rng, name, shared) for name in systems]
    baseline = next((system for system in found if system["name"] == "sim"), None)
    for system in found:
        system["versus"] = None
        if baseline is not None and system is not baseline:
            system["versus"] = {
                metric: paired(by_seed(system, metric), by_seed(baseline, metric), np.full(100, 1e-5))
                for metric in ("auc", "page_gauc")
            }
    by_name = {str(system["name"]): system for system in found}
    steps = [
        {
            "system": one,
            "to": other,
            "versus": {
                metric: paired(by_seed(by_name[one], metric), by_seed(by_name[other], metric))
                for metric in ("auc", "page_gauc")
            },
        }
        for one, other in STEPS
        if one in by_name and other in by_name
    ]
    return {
        "command": "ccn compare --output out --data.folder data/invented",
        "minutes": 61.2,
        "versions": {"lightning_ccn": "0", "torch": "2"},
        "quick": False,
        "dataset": {
            "folder": "data/invented",
            "pages": {"train": 80000, "validation": 10000, "test": 20000},
            "items": 1_540_301,
            "clicks": 302_117,
        },
        "bounds": {"oracle_auc": 0.8582, "attainable_auc": 0.7431},
        "protocol": {
            "seeds": list(range(101, 101 + seeds)),
            "dropped": 2 if seeds >= 5 else 0,
            "trials": 3,
            "finalists": 2,
            "search_share": 0.25,
            "baseline": "sim",
        },
        "metrics": METRICS,
        "systems": found,
        "steps": steps,
        "sensitivity": {
            option: [
                {"value": value, "runs": [_aucs(rng, 0.672) | {"seed": 101 + n} for n in range(2)]} for value in values
            ]
            for option, values in SENSITIVITY.items()
        },
    }


def left_out(values: int = 3) -> dict[str, Any]:
    """A comparison that left out this many scenarios, one at a time, with one seed each."""
    content = comparison(seeds=1, systems=("sim", "tan", "ccn"))
    of_values = [comparison(seeds=1, systems=("sim", "tan", "ccn"))["systems"] for _ in range(values)]
    for at, systems in enumerate(of_values):
        for system in systems:
            system["runs"][0]["metrics"]["auc"] += 0.01 * at + 0.002 * at * (system["name"] == "ccn")
            system["summary"]["auc"] = {"mean": system["runs"][0]["metrics"]["auc"], "se": None, "runs": 1}
        for system in systems[1:]:
            system["versus"]["auc"] = paired(by_seed(system, "auc"), by_seed(systems[0], "auc"))
    for place, system in enumerate(content["systems"]):
        same = [systems[place] for systems in of_values]
        system["runs"] = [{**of["runs"][0], "left_out": 4 + at} for at, of in enumerate(same)]
        system["summary"]["auc"] = over_values([of["summary"]["auc"]["mean"] for of in same])
        if system["versus"]:
            differences = {at: of["versus"]["auc"]["difference"] for at, of in enumerate(same)}
            system["versus"]["auc"] = paired(differences, dict.fromkeys(differences, 0.0))
    content["left_out"] = {
        "column": "scenario",
        "values": [
            {
                "value": 4 + at,
                "name": f"place {at}",
                "pages": {"train": 900, "validation": 90, "test": 1000 + at},
                "items": 9000,
                "clicks": 1800 + at,
                "bounds": {"attainable_auc": 0.75},
                "systems": systems,
            }
            for at, systems in enumerate(of_values)
        ],
    }
    return content | {"sensitivity": {}}


def by_seed(system: dict[str, Any], metric: str) -> dict[int, float | None]:
    return {run["seed"]: run["metrics"][metric] for run in system["runs"]}


def _aucs(rng: np.random.Generator, auc: float) -> dict[str, float]:
    return {"auc": auc + rng.normal(0, 0.0006), "page_gauc": auc + 0.024 + rng.normal(0, 0.0005)}


def _system(rng: np.random.Generator, name: str, shared: np.ndarray) -> dict[str, Any]:
    title, family, paper_auc, auc = SYSTEMS[name]
    runs = [_run(rng, name, 101 + number, auc + shift) for number, shift in enumerate(shared)]
    metrics = [key for key in runs[0]["metrics"] if key != "train_items_per_second"]
    values = {key: [run["metrics"][key] for run in runs] for key in metrics}
    chosen = {"learning_rates": 2.0, "model.system.init_args.heads": 2}
    values["items_per_second"] = [run["metrics"]["train_items_per_second"] for run in runs]
    values["minutes"] = [run["minutes"] for run in runs]
    return {
        "name": name,
        "title": title,
        "family": family,
        "paper_auc": paper_auc,
        "parameters": {"tables": 512_000, "dense": int(rng.integers(9_000, 30_000))},
        "settings": chosen,
        "search": [
            {"settings": settings, "val_aucs": [0.66 - shift, *finals], "pruned": bool(shift > 0.006)}
            for settings, shift, finals in (
                ({}, 0.005, []),
                ({"learning_rates": 0.5}, 0.01, []),
                (chosen, 0.0, [0.657]),
            )
        ],
        "runs": runs,
        "summary": {key: summary(of_runs) for key, of_runs in values.items()},
    }


def _run(rng: np.random.Generator, name: str, seed: int, auc: float) -> dict[str, Any]:
    steps = np.arange(50, 1251, 50)
    has_degree = name.startswith("ccn") or name in ("tan", "tan_bounded")
    metrics = _aucs(rng, auc) | {
        "logloss": 0.478 - (auc - 0.67),
        "normalized_entropy": 0.9485 - (auc - 0.67),
        "calibration": 1 + rng.normal(0, 0.01),
        "train_items_per_second": rng.uniform(20_000, 40_000),
    }
    if name in ("dihn", "dian"):
        metrics["intent_auc"] = 0.61
    return {
        "seed": seed,
        "minutes": rng.uniform(1, 2),
        "metrics": metrics,
        "curve": {
            "step": steps.tolist(),
            "loss": (0.48 + 0.2 * np.exp(-steps / 90) - (auc - 0.67) + rng.normal(0, 0.004, len(steps))).tolist(),
            "val_step": [625, 1250],
            "val_auc": [auc - 0.008, auc - 0.002],
        },
        "diagnostics": {
            "calibration": _calibration(rng),
            "page_auc_by_size": {
                "low": [low for low, _ in SIZES],
                "high": [high for _, high in SIZES],
                "pages": [0, 12, 3_411, 9_120, 7_457, 0],
                "page_gauc": [
                    None,
                    *(auc + shift + rng.normal(0, 0.001) for shift in (0.05, 0.02, 0.022, 0.026)),
                    None,
                ],
            },
            "degrees": _degrees(rng, name) if has_degree else None,
        },
    }


def _calibration(rng: np.random.Generator) -> dict[str, list[float]]:
    predicted = np.linspace(0.04, 0.55, 20)
    items = np.full(20, 14_000)
    clicked = rng.binomial(items, np.clip(predicted * 1.02 - 0.004, 0, 1)) / items
    return {"items": items.tolist(), "predicted": predicted.tolist(), "clicked": clicked.tolist()}


def _degrees(rng: np.random.Generator, name: str) -> dict[str, Any]:
    bounded, apart = name != "tan", 0.9 if name.startswith("ccn") else 0.4
    edges = np.linspace(0, 1, 65) if bounded else np.linspace(-8, 8, 257)
    lanes = {}
    for when, gap, spread in (("before", 0.0, 0.15), ("after", apart, 0.8)):
        unclicked, clicked = (
            rng.normal(-0.8 * (gap > 0), spread, 8_000),
            rng.normal(gap - 0.8 * (gap > 0), spread, 2_000),
        )
        squash = (lambda v: 1 / (1 + np.exp(-v))) if bounded else (lambda v: 1.5 * v)
        counts = [np.histogram(squash(values), edges)[0].tolist() for values in (unclicked, clicked)]
        lanes[when] = {"edges": edges.tolist(), "unclicked": counts[0], "clicked": counts[1]}
    return lanes
