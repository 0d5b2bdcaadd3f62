"""``arcforge bench loaders``: how fast a network can be fed, and a small one trained on it as an example.

The example is :func:`train`: a convolutional network of a few thousand weights that tells stamps from their
controls, fed by :class:`arcforge.engine.torch_data.PairStream`. It shows how a pair is used, not how well a
lens finder does.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from arcforge.bench.machine import describe_machine
from arcforge.engine.errors import ConfigError
from arcforge.engine.store import open_store

SCHEMA = "arcforge.bench.loaders/1"
BATCH_ROWS = 64
_RENDERED_BATCHES = 8
_SCALE_NMGY = 0.02  # a few sky sigma: inputs of order one
_SEED = 20_260_704

NOTES = {
    "rates": "Pairs a second, wall time, one process each: batches of 64, both members turned.",
    "stream": "Block-shuffled, from the page cache after a first pass.",
    "by_index": "Single rows in random order, a batch at a time.",
    "rendered": "Made on the fly with the built-in configuration and synthetic hosts, one thread.",
    "train": "Cross entropy of stamp against control, mean of the first and of the last tenth of the steps.",
}


def bench_loaders(path: Path, *, batches: int = 32, steps: int = 200) -> dict[str, Any]:
    """Time the datasets on a store, train the example, and return the report.

    Parameters
    ----------
    path : Path
        A store of ``BATCH_ROWS`` rows or more.
    batches : int
        Batches that are timed of each.
    steps : int
        Training steps.

    Raises
    ------
    ConfigError
        Where torch is not installed.
    """
    try:
        from arcforge.engine.torch_data import PairDataset, PairStream, RenderedPairs
    except ImportError as error:
        raise ConfigError(str(error)) from error
    store = open_store(path)
    picked = np.random.default_rng(_SEED).integers(0, len(store), (batches, BATCH_ROWS))
    by_index = PairDataset(path)
    rates = {
        "stream": _rate(islice(_epochs(PairStream(path, BATCH_ROWS)), 2 * batches), batches),
        "by_index": _rate((_stacked(by_index.__getitems__(rows.tolist())) for rows in picked), 1),
        "rendered": _rate(islice(RenderedPairs(batch_size=BATCH_ROWS, seed=_SEED), 1 + _RENDERED_BATCHES), 1),
    }
    return {
        "schema": SCHEMA,
        "notes": NOTES,
        "machine": describe_machine(),
        "settings": {"rows": len(store), "stamp_size": store.stamp_size, "bands": store.bands},
        "pairs_per_s": rates,
        "train": train(path, steps),
    }


def _stacked(items: list[dict[str, Any]]) -> dict[str, Any]:
    return {"row": [item["row"] for item in items]}


def _epochs(stream: Any) -> Iterable[dict[str, Any]]:
    """Yield batches without end, epoch after epoch."""
    epoch = 0
    while True:
        stream.set_epoch(epoch)
        yield from stream
        epoch += 1


def _rate(batches: Iterable[dict[str, Any]], untimed: int) -> float:
    """Return rows a second, after some batches that open files and compile."""
    n, began = 0, time.perf_counter()
    for k, batch in enumerate(batches):
        if k < untimed:
            began = time.perf_counter()
        else:
            n += len(batch["row"])
    return n / (time.perf_counter() - began)


def train(path: Path, steps: int) -> dict[str, float]:
    """Train a small network to tell stamps from controls, and return its loss at the beginning and the end.

    Both members of a pair are in each batch, so that no step sees a host with one label only.
    """
    import torch

    from arcforge.engine.torch_data import PairStream

    torch.manual_seed(_SEED)
    stream = PairStream(path, BATCH_ROWS, seed=_SEED)
    layers: list[torch.nn.Module] = []
    channels = len(stream.store.bands)
    for width in (16, 24, 32):
        layers += [torch.nn.Conv2d(channels, width, 3, padding=1), torch.nn.ReLU(), torch.nn.MaxPool2d(2)]
        channels = width
    network = torch.nn.Sequential(
        *layers, torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten(), torch.nn.Linear(16 * channels, 1)
    )
    optimiser = torch.optim.Adam(network.parameters(), lr=2e-3)
    losses = []
    began = time.perf_counter()
    for batch in islice(_epochs(stream), steps):
        pixels = torch.asinh(torch.cat([batch["stamp"], batch["ctrl"]]) / _SCALE_NMGY)
        labels = torch.cat([torch.ones(len(batch["stamp"])), torch.zeros(len(batch["ctrl"]))])
        loss = torch.nn.functional.binary_cross_entropy_with_logits(network(pixels)[:, 0], labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    tenth = max(1, steps // 10)
    return {
        "steps": steps,
        "first_loss": float(np.mean(losses[:tenth])),
        "last_loss": float(np.mean(losses[-tenth:])),
        "seconds": time.perf_counter() - began,
    }
