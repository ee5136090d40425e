"""Training on a GPU. Run it alone: ``pytest tests/training/test_cuda.py``; without a GPU it is skipped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import clusters
from hashlgn.config import Config
from hashlgn.scoring.histories import queries
from hashlgn.training.encoders import ENCODERS
from hashlgn.training.hashes import HASHES
from hashlgn.training.student import plan, train_student
from hashlgn.training.trainer import train
from hashlgn.utils.progress import Progress

pytestmark = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

SMALL = {"model.encoder": "lightgcn", "model.dim": 8, "model.bits": 16, "train.validation_users": 30}
SMALL |= {"train.monitor": "recall", "train.monitor_k": 5, "train.pretrain_epochs": 8, "train.joint_epochs": 4}


@pytest.mark.parametrize(
    "how",
    [
        *({"model.encoder": encoder} for encoder in ENCODERS),
        *({"model.hash": name, "model.decoder": HASHES[name].decoder or "reweight"} for name in HASHES),
        {"model.hash": "mlp3", "model.decoder": "reweight", "train.loss": "bpr"},
    ],
    ids=lambda how: " ".join(how.values()),
)
def test_a_gpu_trains_as_the_processor_does(how: dict[str, str]) -> None:
    data = clusters(80, 48)
    near, far = (train(data, Config().updated(SMALL | how), device=device) for device in ("cpu", "cuda"))
    assert far.device == "cuda" and far.metrics["joint"] > near.metrics["joint"] - 0.1
    scores = [q.numpy() @ items.decode().T for q, items, _ in (done.model.export(done.graph) for done in (near, far))]
    own = np.arange(80)[:, None] % 4 == np.arange(48) % 4
    apart = [side[own].mean() - side[~own].mean() for side in scores]
    assert apart[1] > 0.5 * apart[0] > 0


def test_a_training_on_a_gpu_is_resumed(tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def kill(step: Progress) -> None:
        if step.stage == "joint" and step.epoch_done:
            raise Killed

    data, path, config = clusters(80, 48), tmp_path / "checkpoint", Config().updated(SMALL)
    whole = train(data, config, device="cuda")
    with pytest.raises(Killed):
        train(data, config, device="cuda", checkpoint=path, report=kill)
    got = train(data, config, device="cuda", checkpoint=path)
    assert got.metrics["encoder"] == pytest.approx(whole.metrics["encoder"], abs=0.05)
    assert got.metrics["joint"] == pytest.approx(whole.metrics["joint"], abs=0.1)


@pytest.mark.parametrize("candidates", [8_192, 32])  # all items, and a sample of them
def test_a_student_trains_as_on_the_processor(candidates: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "_FEWEST_CANDIDATES", 1)
    small = {"model.dim": 16, "model.bits": 32, "model.history_bits": 32, "student.batch_users": 16}
    small |= {"student.candidates": candidates}
    data = clusters(80, 48)
    near, far = (train_student(data, Config().updated(small), device=device) for device in ("cpu", "cuda"))
    assert far.device.startswith("cuda") and far.metrics["histories"] > near.metrics["histories"] - 0.1
    own = np.arange(80)[:, None] % 4 == np.arange(48) % 4
    for side in (near, far):
        scores = queries(side.histories, data.indptr, data.indices) @ side.answers.decode().T
        assert scores[own].mean() > scores[~own].mean() + 0.2
