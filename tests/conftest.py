"""What several test files share: small data with a structure to learn, models trained on it, and the real data."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

# Before NumPy and PyTorch are imported: on data of a few kilobytes threads cost more than they save.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
from hypothesis import settings

from hashlgn.data import Ids, Interactions

# A busy machine is no fault of the code, and a check of a change tries the same examples each time; people's own runs
# try others.
settings.register_profile("patient", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("patient")

if TYPE_CHECKING:  # what is served is tested without PyTorch too
    import torch


def clusters(n_users: int = 60, n_items: int = 40, groups: int = 4, share: float = 0.5, seed: int = 0) -> Interactions:
    """Users and items in groups; a user has about ``share`` of the items of their own group, and no others."""
    rng = np.random.default_rng(seed)
    users, items = np.meshgrid(np.arange(n_users), np.arange(n_items), indexing="ij")
    chosen = (users % groups == items % groups) & (rng.random(users.shape) < share)
    chosen[np.arange(n_users), np.arange(n_users) % groups] = True  # everybody has something, and so has everything
    place = np.arange(n_items)
    chosen[place % groups + groups * (1 + place // groups % (n_users // groups - 1)), place] = True
    # By number, not in order of arrival: user and item number n are in group n % groups.
    ids = Ids(np.arange(n_users) + 1000), Ids(np.arange(n_items) + 1)
    return Interactions(*ids, np.append(0, chosen.sum(axis=1).cumsum()), items[chosen].astype(np.int32))


def unit(n: int, dim: int) -> torch.Tensor:
    """Vectors of length 1, always the same."""
    import torch

    return torch.nn.functional.normalize(torch.randn(n, dim, generator=torch.Generator().manual_seed(0)))


@pytest.fixture
def seeded() -> None:
    """Fix PyTorch's draws in a test."""
    import torch

    torch.manual_seed(0)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets."""
    folder = os.environ.get("HASHLGN_DATA")
    if not folder:
        pytest.skip("HASHLGN_DATA is not set: it names the folder with ml-1m, ml-100k and gowalla")
    return Path(folder)
