"""The validation slice, and the metric on it that decides while a model is trained."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from hashlgn.config import Config, TrainConfig
from hashlgn.data import Interactions, random_ratio
from hashlgn.evaluation.metrics import METRICS, Evaluated, Floats
from hashlgn.training.graph import Graph

__all__ = ["cut_slice", "near_best", "ranking_metric", "ranking_values", "surely_better", "validation_metric"]

_SURE = 2.0  # standard errors


def cut_slice(data: Interactions, settings: TrainConfig) -> tuple[Interactions, Interactions | None]:
    """(fit, held out); (data, None) where no slice is wanted, or no user has five interactions to give one of."""
    if not settings.validation_users:
        return data, None
    fit, held_out = random_ratio(
        data, settings.validation_share, seed=settings.seed, max_users=settings.validation_users
    )
    return (fit, held_out) if len(held_out) else (data, None)


@torch.no_grad()
def validation_metric(
    model: nn.Module, graph: Graph, fit: Interactions, held_out: Interactions, config: Config
) -> float:
    """Mean of ``train.monitor`` of the held-out interactions: the whole catalogue is ranked, fitted ones masked."""
    model.eval()
    queries, items, _ = model(graph)
    return ranking_metric(queries, items, fit, held_out, config)


def ranking_metric(
    queries: torch.Tensor, items: torch.Tensor, fit: Interactions, held_out: Interactions, config: Config
) -> float:
    """The same for any queries and items."""
    return float(ranking_values(queries, items, fit, held_out, config).mean())


def ranking_values(
    queries: torch.Tensor, items: torch.Tensor, fit: Interactions, held_out: Interactions, config: Config
) -> Floats:
    """The same, one value per user who has held-out interactions."""
    k = min(config.train.monitor_k, held_out.n_items)
    function = METRICS[config.train.monitor]
    users = np.flatnonzero(np.diff(held_out.indptr))
    values = []
    for start in range(0, len(users), 1024):
        chunk = users[start : start + 1024]
        scores = queries[torch.from_numpy(chunk).to(queries.device)] @ items.T
        seen, truth = fit.matrix[chunk].tocoo(), held_out.matrix[chunk].tocsr()
        scores[torch.from_numpy(seen.row).long(), torch.from_numpy(seen.col).long()] = -torch.inf
        top = scores.topk(k, dim=1).indices.cpu().numpy()
        indptr = np.arange(len(chunk) + 1) * k
        values.append(function(Evaluated.build(indptr, top.ravel(), truth.indptr, truth.indices), k))
    return np.concatenate(values)


def near_best(values: Floats) -> npt.NDArray[np.int64]:
    """Numbers of the rows of ``values``, (variant, user), whose mean lies within one standard error of the best row's.
    The error is that of the mean difference between the two rows, user by user.

    Source: the one-standard-error rule of Breiman, Friedman, Olshen and Stone, *Classification and Regression Trees*,
    1984.
    """
    behind = values[values.mean(axis=1).argmax()] - values
    error = behind.std(axis=1) / np.sqrt(behind.shape[1])
    return np.flatnonzero(behind.mean(axis=1) <= error)


def surely_better(values: Floats, usual: Floats) -> bool:
    """Whether one value per user is better on average, by two standard errors of the mean difference."""
    lead = values - usual
    return bool(lead.mean() > _SURE * lead.std() / len(lead) ** 0.5)
