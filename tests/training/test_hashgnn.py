"""HashGNN: users and items through one hash, guided on the way there, searched by Hamming distance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import hashlgn
from conftest import clusters, unit
from hashlgn.config import Config, ModelConfig, preset_changes
from hashlgn.data import random_ratio
from hashlgn.errors import ArgumentError
from hashlgn.scoring.codes import hamming, pack_signs
from hashlgn.scoring.items import CodedItems
from hashlgn.training.encoders import ENCODERS, LightGCN
from hashlgn.training.graph import Graph
from hashlgn.training.hashes import HASHES, sign
from hashlgn.training.losses import LOSSES
from hashlgn.training.model import Model
from hashlgn.training.resolve import resolve
from hashlgn.training.schedules import guidance
from hashlgn.training.trainer import Trained, train
from hashlgn.utils.progress import Progress

pytestmark = pytest.mark.usefixtures("seeded")

SMALL: dict[str, Any] = preset_changes("hashgnn") | {"model.dim": 8, "model.bits": 32, "train.temperature": 4.0}
SMALL |= {
    "train.pretrain_epochs": 0,
    "train.joint_epochs": 6,
    "train.batch_size": 50,
    "train.validation_users": 30,
    "train.monitor": "recall",
    "train.monitor_k": 5,
}
BOTH = [name for name, hash_ in HASHES.items() if not hash_.per_item]  # what users can go through too


def config(**changes: Any) -> Config:
    return Config().updated(SMALL | {name.replace("__", "."): value for name, value in changes.items()})


def equal(a: Trained, b: Trained) -> bool:
    return all(
        torch.equal(x, y) for x, y in zip(a.model.state_dict().values(), b.model.state_dict().values(), strict=True)
    )


def binary(hash_: str, data: Any, bits: int = 16) -> tuple[Model, Graph]:
    """A model that is binary on both sides, its hash moved from where it starts."""
    graph = Graph(data)
    how = {"hash": hash_, "decoder": "identity", "compression": "hash", "similarity": "inner", "scale": False}
    model = Model(LightGCN(data.n_users, data.n_items, 8, 2), data.n_items, ModelConfig(bits=bits, **how))
    model.start_codes(graph)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval(), graph


@pytest.mark.parametrize("hash_", BOTH)
def test_scores_are_hamming_distances_of_both_codes(hash_: str) -> None:
    model, graph = binary(hash_, clusters(20, 30))
    queries, items, _ = model.export(graph)
    assert isinstance(items, CodedItems) and items.scale is None and items.bytes_per_item == 2
    assert set(queries.unique().tolist()) == {-1.0, 1.0}
    distances = hamming(pack_signs(queries.numpy().astype(np.int8)), items.packed)
    np.testing.assert_array_equal(queries.numpy() @ items.decode().T, 16 - 2 * distances)
    trained = model(graph)
    np.testing.assert_array_equal((trained.queries @ trained.items.T).detach().numpy(), 16 - 2 * distances)


@pytest.mark.parametrize("hash_", BOTH)
def test_a_history_alone_is_hashed_as_a_training_user_without_an_embedding(hash_: str) -> None:
    data = clusters(20, 30)
    model, graph = binary(hash_, data)
    with torch.no_grad():
        model.get_parameter("encoder.users")[7] = 0
    queries, _, fold_in = model.export(graph)
    np.testing.assert_array_equal(fold_in.queries(np.array([0, len(data.row(7))]), data.row(7))[0], queries[7])


@given(st.integers(1, 100_000), st.floats(0, 1), st.floats(0, 1))
def test_guidance_falls_from_1_to_0_within_half_of_the_training(steps: int, a: float, b: float) -> None:
    early, late = sorted((int(a * (steps - 1)), int(b * (steps - 1))))
    assert 1 == guidance(0, steps) >= guidance(early, steps) >= guidance(late, steps) >= 0
    if late >= min(5000, steps / 2):
        assert guidance(late, steps) == 0
    assert (20 * guidance(late, steps)) == pytest.approx(round(20 * guidance(late, steps)))


def test_guidance_of_a_long_training_is_the_published_schedule() -> None:
    found = [guidance(step, 20_000) for step in (0, 249, 250, 499, 500, 2500, 4749, 4999, 5000, 19_999)]
    assert found == pytest.approx([1, 1, 0.95, 0.95, 0.9, 0.5, 0.1, 0.05, 0, 0])
    assert [guidance(step, 4000) for step in (99, 100, 1999, 2000)] == pytest.approx([1, 0.95, 0.05, 0])


@pytest.mark.parametrize("name", [name for name in HASHES if HASHES[name].has_sign])
def test_guided_rows_are_what_the_sign_is_taken_of(name: str) -> None:
    items = unit(2000, 12)
    made = HASHES[name](2000, 12, 16)
    made.start(items)
    x = made.net(items).clamp(-1, 1)
    for guided in (0.0, 0.3, 1.0):
        made.guided = guided
        made.train()
        rows = made(items)
        cut, whole = (rows == sign(x)).all(dim=1), (rows == x).all(dim=1)
        assert (cut | whole).all() and abs(whole.float().mean().item() - guided) < 0.05
        assert torch.equal(made.eval()(items), sign(x))


def test_straight_through_the_sign_the_gradient_is_that_of_the_tanh() -> None:
    items, weights = unit(40, 12), torch.randn(40, 16)
    made = HASHES["tanh"](40, 12, 16).train()
    made.start(items)
    got = torch.autograd.grad((made(items) * weights).sum(), made.net.weight)
    want = torch.autograd.grad((made.net(items) * weights).sum(), made.net.weight)
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("form", ["hashgnn", "hashgnn-code"])
def test_losses_by_hand(form: str) -> None:
    queries, items = torch.tensor([[1.0, 1.0], [1.0, -1.0]]), torch.tensor([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0]])
    users, positives, negatives = np.array([0, 1]), np.array([0, 1]), np.array([[1, 2], [0, 2]])
    loss = LOSSES[form](Config().updated({"train.temperature": 2.0}).train, "inner")
    up, down = np.array([[1.0], [-1.0]]), np.array([[0.0, 0.0], [0.0, 1.0]])  # half the inner products

    def sigma(x: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-x))

    entropy = -(np.log(sigma(up)).sum() + np.log(1 - sigma(down)).sum()) / 6
    if form == "hashgnn":
        want = entropy + 0.5 * np.maximum(0, 0.2 - sigma(up) + sigma(down)).mean()
    else:
        want = 0.1 * entropy - np.log(sigma(up - down)).mean()
    assert loss(queries, items, (users, positives, negatives)).item() == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize("form", ["hashgnn", "hashgnn-code"])
def test_every_interaction_meets_ten_items_without_one(form: str) -> None:
    data = clusters(20, 30)
    loss = LOSSES[form](config().train, "inner")
    batches = list(loss.batches(data, np.random.default_rng(0)))
    assert sum(len(users) for users, _, _ in batches) == len(data)
    for users, positives, negatives in batches:
        assert negatives.shape == (len(users), 10)
        assert data.matrix[users, positives].all()
        assert not data.matrix[np.repeat(users, 10), negatives.ravel()].any()


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("hash_", BOTH)
def test_every_encoder_and_hash_can_be_binary_on_both_sides(encoder: str, hash_: str) -> None:
    done = train(clusters(40, 24), config(model__encoder=encoder, model__hash=hash_, train__joint_epochs=2))
    queries, items, fold_in = done.model.export(done.graph)
    scores = queries.numpy() @ items.decode().T
    assert (scores % 2 == 0).all() and np.abs(scores).max() <= 32
    assert set(np.unique(fold_in.queries(np.array([0, 2]), np.array([0, 5])))) <= {-1.0, 1.0}


@pytest.mark.parametrize("guided", [True, False])
@pytest.mark.parametrize("form", ["hashgnn", "hashgnn-code"])
def test_it_finds_the_planted_groups(form: str, guided: bool) -> None:
    fit, test = random_ratio(clusters(80, 48, groups=4, share=0.4), 0.25, seed=1)
    done = train(fit, config(train__loss=form, train__joint_epochs=40, train__joint_lr=0.03, model__guidance=guided))
    queries, items, _ = done.model.export(done.graph)
    scores = queries.numpy() @ items.decode().T
    scores[fit.matrix.nonzero()] = -np.inf
    top = np.argsort(-scores, axis=1)[:, :10]
    recall = np.mean([np.isin(test.row(user), top[user]).mean() for user in range(80) if len(test.row(user))])
    assert recall > 0.8  # at random: 10 of about 43


def test_a_seed_fixes_every_draw_and_guidance_matters() -> None:
    data = clusters(40, 24)
    first, again = (train(data, config(train__seed=3)) for _ in range(2))
    assert equal(first, again) and first.metrics == again.metrics
    assert not equal(first, train(data, config(train__seed=4)))
    assert not equal(first, train(data, config(train__seed=3, model__guidance=False)))


class Killed(Exception):
    pass


@pytest.mark.parametrize("pretraining", [0, 3])
@pytest.mark.parametrize("when", [1, 3, 5])
def test_killed_and_resumed_equals_uninterrupted(when: int, pretraining: int, tmp_path: Path) -> None:
    """Neighbours and guided rows are drawn anew for each epoch, whatever was drawn before."""
    data, path, how, ended = (
        clusters(40, 24),
        tmp_path / "checkpoint",
        config(train__pretrain_epochs=pretraining, train__joint_epochs=6 - pretraining),
        0,
    )
    want = train(data, how)

    def kill(step: Progress) -> None:
        nonlocal ended
        ended += step.epoch_done
        if ended == when:
            raise Killed

    with pytest.raises(Killed):
        train(data, how, checkpoint=path, report=kill)
    got = train(data, how, checkpoint=path)
    assert equal(got, want) and got.metrics == want.metrics


def test_training_ends_without_guidance(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    real = Model.forward

    def noted(self: Model, graph: Graph) -> Any:
        if self.training:
            seen.append(self.hash.guided)
        return real(self, graph)

    monkeypatch.setattr(Model, "forward", noted)
    done = train(clusters(40, 24), config(train__patience=99))
    assert seen[0] == 1 and seen[-1] == 0 and seen == sorted(seen, reverse=True) and 0 < np.mean(seen) < 0.5
    assert not done.model.training


def test_saved_loaded_and_searched_without_pytorch_by_hamming_distance(tmp_path: Path) -> None:
    data = clusters(40, 24)
    hashlgn.HashLGN(32, preset="hashgnn", config={"model.dim": 8, "train.joint_epochs": 2, "train.monitor_k": 5}).fit(
        data
    ).save(tmp_path / "model")
    model = hashlgn.load(tmp_path / "model")
    served = model.model
    assert set(np.unique(served.users)) == {-1.0, 1.0} and model.info()["bytes"]["items"]["codes"] == 128 * 4
    distances = hamming(pack_signs(served.users.astype(np.int8)), served.items.packed)
    table = model.recommend(k=5, filter_seen=False)
    users, items = served.user_ids.encode(table["user"]), served.item_ids.encode(table["item"])
    np.testing.assert_array_equal(table["score"], 32 - 2 * distances[users, items])
    ids = served.item_ids.decode(data.row(0))
    scores = model.recommend(history=ids, k=10)["score"]
    assert len(scores) and (scores % 2 == 0).all() and np.abs(scores).max() <= 32


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model.hash": "residual", "model.decoder": "codebook", "model.guidance": False},
            "compression 'hash' needs a hash that users can go through too",
        ),
        ({"model.decoder": "reweight"}, "compression 'hash' needs decoder 'identity'.*got decoder 'reweight'"),
        ({"model.similarity": "cosine"}, "similarity 'inner'.*got .*'cosine'"),
        ({"model.scale": True}, "no scale.*scale True"),
        (
            {"model.compression": "linear", "model.hash": "residual", "model.decoder": "codebook"},
            "guidance needs a hash with a sign",
        ),
        ({"train.temperature": -1.0}, r"train\.temperature must lie in 0.0001 … 10,000"),
    ],
)
def test_settings_that_do_not_go_together_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        train(clusters(40, 24), Config().updated(SMALL | changes))


def test_choices_that_are_left_open_are_filled_in() -> None:
    open_ = {key: value for key, value in preset_changes("hashgnn").items() if key != "model.similarity"}
    assert resolve(Config().updated(open_)).model.similarity == "inner"
