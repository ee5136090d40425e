"""Training as a whole: it learns, it repeats, it resumes, it stops, and it refuses what it cannot do."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import clusters
from hashlgn.config import Config
from hashlgn.data import Interactions, random_ratio
from hashlgn.errors import ArgumentError, DataError
from hashlgn.training.checkpoint import Best
from hashlgn.training.decoders import DECODERS
from hashlgn.training.encoders import ENCODERS, LightGCN, Spectral
from hashlgn.training.graph import Graph
from hashlgn.training.hashes import HASHES
from hashlgn.training.losses import LOSSES
from hashlgn.training.resolve import resolve
from hashlgn.training.trainer import Trained, train
from hashlgn.training.validation import near_best, ranking_metric, ranking_values, validation_metric
from hashlgn.utils.progress import Progress

UNTAUGHT = [name for name, loss in LOSSES.items() if not loss.needs_teacher]
SMALL = {
    "model.encoder": "lightgcn",
    "model.dim": 8,
    "model.bits": 16,
    "train.pretrain_epochs": 4,
    "train.joint_epochs": 2,
}
SMALL |= {"train.validation_users": 30, "train.monitor": "recall", "train.monitor_k": 5}


def config(**changes: object) -> Config:
    return Config().updated(SMALL | {name.replace("__", "."): value for name, value in changes.items()})


# Small enough for an epoch of several steps under either loss.
BATCHES: dict[str, object] = {"train__batch_users": 10, "train__batch_size": 50}


def random_start(n_users: int, n_items: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "users": rng.standard_normal((n_users, 8), np.float32),
        "items": rng.standard_normal((n_items, 8), np.float32),
    }


def served_scores(trained: Trained) -> np.ndarray:
    """Scores of every user and item, as they are served."""
    queries, items, _ = trained.model.export(trained.graph)
    return queries.numpy() @ items.decode().T


def weights(trained: Trained) -> dict[str, torch.Tensor]:
    return trained.model.state_dict()


def equal(a: Trained, b: Trained) -> bool:
    return all(torch.equal(x, y) for x, y in zip(weights(a).values(), weights(b).values(), strict=True))


COMBINATIONS = [
    (encoder, hash_, decoder, loss)
    for encoder, hash_, decoder, loss in itertools.product(ENCODERS, HASHES, DECODERS, UNTAUGHT)
    if HASHES[hash_].decoder in (None, decoder)
]


@pytest.mark.parametrize(("encoder", "hash_", "decoder", "loss"), COMBINATIONS)
def test_every_combination_trains_and_is_served(encoder: str, hash_: str, decoder: str, loss: str) -> None:
    data = clusters(40, 24)
    how = {"model__encoder": encoder, "model__hash": hash_, "model__decoder": decoder, "train__loss": loss}
    done = train(data, config(train__pretrain_epochs=2, train__joint_epochs=1, **how), device="cpu")
    _, items, fold_in = done.model.export(done.graph)
    trained = done.model(done.graph)
    want = (trained.queries @ trained.items.T).detach().numpy()
    np.testing.assert_allclose(served_scores(done), want, rtol=2e-3, atol=2e-3 * np.abs(want).max())
    # Three epochs cannot always tell groups apart, but a history alone is never answered worse than by chance.
    folded = fold_in.queries(data.indptr, data.indices) @ items.decode().T
    assert folded.shape == want.shape and np.isfinite(folded).all() and np.ptp(folded) > 0


@pytest.mark.parametrize("how", [{"model__kind": "float"}, {}, {"model__hash": "mlp3", "model__decoder": "reweight"}])
@pytest.mark.parametrize("loss", UNTAUGHT)
def test_it_finds_the_planted_groups(how: dict[str, object], loss: str) -> None:
    data = clusters(80, 48, groups=4, share=0.4)
    train_part, test = random_ratio(data, 0.25, seed=1)
    done = train(
        train_part, config(train__loss=loss, train__pretrain_epochs=8, train__joint_epochs=4, model__bits=32, **how)
    )
    queries, items, _ = done.model.export(done.graph)
    scores = torch.from_numpy(items.decode())
    recall = ranking_metric(queries, scores, train_part, test, config(train__monitor_k=10))
    assert recall > 0.8  # at random: 10 of about 43


@pytest.mark.parametrize("loss", UNTAUGHT)
def test_a_seed_fixes_every_bit(loss: str) -> None:
    data = clusters(40, 24)
    first, again = (train(data, config(train__loss=loss, train__seed=3)) for _ in range(2))
    assert equal(first, again)
    assert not equal(first, train(data, config(train__loss=loss, train__seed=4)))


def test_a_seed_draws_the_first_weights() -> None:
    how = {
        "model__kind": "float",
        "train__init": "random",
        "train__pretrain_epochs": 0,
        "train__joint_epochs": 0,
        "train__validation_users": 0,
    }
    first, again, other = (train(clusters(40, 24), config(train__seed=seed, **how)) for seed in (3, 3, 4))
    assert equal(first, again) and not equal(first, other)


def test_a_seed_fixes_every_bit_where_rows_repeat() -> None:
    """Three kinds of users have three singular vectors above 0, and five more to choose as one likes."""
    users, items = np.nonzero(np.arange(40)[:, None] % 3 == np.arange(24) % 3)
    data = Interactions.from_pairs(users, items)
    assert equal(*(train(data, config()) for _ in range(2)))


def test_training_leaves_generator_and_threads_as_they_were() -> None:
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    done = train(clusters(40, 24), config(train__pretrain_epochs=0, train__joint_epochs=1), threads=1)
    assert done.threads == 1 and torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("loss", UNTAUGHT)
def test_reports_count_every_step_once(loss: str) -> None:
    seen: list[Progress] = []
    how = config(train__loss=loss, train__patience=99, train__pretrain_epochs=3, train__joint_epochs=2, **BATCHES)
    train(clusters(40, 24), how, report=seen.append)
    assert [step.step for step in seen] == list(range(1, seen[-1].steps + 1))
    ends = [(step.stage, step.epoch, step.epochs) for step in seen if step.epoch_done]
    assert ends == [("encoder", 1, 3), ("encoder", 2, 3), ("encoder", 3, 3), ("joint", 1, 2), ("joint", 2, 2)]
    assert len(seen) > 2 * len(ends)
    validated = [(step.stage, step.epoch) for step in seen if step.metric is not None]
    assert validated == [("encoder", 2), ("encoder", 3), ("joint", 2)]  # every second epoch, and the last


def test_the_penalty_on_embeddings_shrinks_them() -> None:
    kept = {"train__loss": "bpr", "model__kind": "float", "train__validation_users": 0, "model__similarity": "inner"}
    free, held = (train(clusters(40, 24), config(train__l2=l2, **kept)).model for l2 in (0.0, 10.0))
    assert held.get_parameter("encoder.users").norm() < 0.9 * free.get_parameter("encoder.users").norm()


class Killed(Exception):
    pass


@pytest.mark.parametrize("how", [{}, {"model__hash": "mlp3", "model__decoder": "reweight", "train__loss": "bpr"}])
@pytest.mark.parametrize("when", [1, 3, 4, 5, 6])
def test_killed_and_resumed_equals_uninterrupted(how: dict[str, object], when: int, tmp_path: Path) -> None:
    data, path, how = clusters(40, 24), tmp_path / "checkpoint", how | BATCHES
    whole: list[Progress] = []
    want = train(data, config(**how), report=whole.append)
    assert sum(step.epoch_done for step in whole) == 6

    ended = 0

    def kill(step: Progress) -> None:
        nonlocal ended
        ended += step.epoch_done
        if ended == when:
            raise Killed

    with pytest.raises(Killed):
        train(data, config(**how), checkpoint=path, report=kill)
    assert path.exists()
    rest: list[Progress] = []
    got = train(data, config(**how), checkpoint=path, report=rest.append)
    assert equal(got, want) and got.metrics == want.metrics
    # It stays for whoever saves the model, and asked again it gives the same without another step.
    assert equal(train(data, config(**how), checkpoint=path, report=lambda step: pytest.fail("a step")), want)
    left = [(s.stage, s.epoch, s.loss, s.metric) for s in rest if s.epoch_done]
    assert left == [(s.stage, s.epoch, s.loss, s.metric) for s in whole if s.epoch_done][when:]


def test_killed_within_epochs_again_and_again(tmp_path: Path) -> None:
    data, path, tries = clusters(40, 24), tmp_path / "checkpoint", 0
    want = train(data, config(**BATCHES))
    done: Trained | None = None
    while done is None:
        left = 7  # more than an epoch's steps: fewer would never get to the next checkpoint

        def kill(step: Progress) -> None:
            nonlocal left
            left -= 1
            if not left:
                raise Killed

        tries += 1
        try:
            done = train(data, config(**BATCHES), checkpoint=path, report=kill)
        except Killed:
            assert tries < 50
    assert tries > 3 and equal(done, want) and done.metrics == want.metrics


@pytest.mark.parametrize("when", [2, 3, 4])
def test_a_stage_that_ended_early_is_still_over_when_resumed(when: int, tmp_path: Path) -> None:
    data, path = clusters(60, 40, share=0.3), tmp_path / "checkpoint"
    how = config(
        train__pretrain_epochs=26,
        train__joint_epochs=14,
        train__lr=2.0,
        train__joint_lr=2.0,
        train__patience=2,
        train__validate_every=1,
    )
    whole: list[Progress] = []
    want = train(data, how, report=whole.append)
    assert len(whole) < 40
    ended = 0

    def kill(step: Progress) -> None:
        nonlocal ended
        ended += step.epoch_done
        if ended == when:
            raise Killed

    with pytest.raises(Killed):
        train(data, how, checkpoint=path, report=kill)
    rest: list[Progress] = []
    got = train(data, how, checkpoint=path, report=rest.append)
    assert equal(got, want) and got.metrics == want.metrics and len(rest) == len(whole) - when


def test_a_checkpoint_of_another_training_or_a_damaged_one_is_refused(tmp_path: Path) -> None:
    data, path = clusters(40, 24), tmp_path / "checkpoint"

    def kill(step: Progress) -> None:
        if step.epoch_done:
            raise Killed

    with pytest.raises(Killed):
        train(data, config(), checkpoint=path, report=kill)
    content = path.read_bytes()
    for other in (
        lambda: train(data, config(train__seed=1), checkpoint=path),
        lambda: train(clusters(40, 24, seed=5), config(), checkpoint=path),
        lambda: train(data, config(), checkpoint=path, start=random_start(40, 24)),
    ):
        with pytest.raises(ArgumentError, match="same data and configuration"):
            other()
    for damaged in (content[: len(content) // 2], b"", b"text", content[:100] + b"\0" * 50 + content[150:]):
        path.write_bytes(damaged)
        with pytest.raises(ArgumentError, match="checkpoint must be"):
            train(data, config(), checkpoint=path)
        assert path.read_bytes() == damaged
    with pytest.raises(ArgumentError, match="checkpoint must be writable"):
        train(data, config(), checkpoint=tmp_path / "none" / "checkpoint")


def test_the_best_weights_are_kept_and_patience_ends_a_stage() -> None:
    data = clusters(60, 40, share=0.3)
    seen: list[Progress] = []
    how = config(
        train__pretrain_epochs=40, train__joint_epochs=0, train__lr=2.0, train__patience=2, train__validate_every=1
    )
    done = train(data, how, report=seen.append)
    values = [step.metric for step in seen if step.metric is not None]
    assert len(values) < 40  # such a rate does harm at once
    fit, held_out = random_ratio(data, 0.1, seed=0, max_users=30)
    again = validation_metric(done.model, Graph(fit), fit, held_out, done.config)
    assert again == pytest.approx(done.metrics["joint"]) and done.metrics["encoder"] >= max(values)
    assert done.metrics["joint"] < 1  # else all are as good as the best


@pytest.mark.parametrize("stage", ["encoder", "joint"])
def test_a_stage_ends_with_its_best_weights_not_its_last(stage: str) -> None:
    data, seen = clusters(60, 40, share=0.3), list[Progress]()
    rates = {"train__lr": 2.0, "train__joint_lr": 2.0, "train__code_lr": 2.0}
    kind = "float" if stage == "encoder" else "hashlgn"
    how = config(model__kind=kind, train__pretrain_epochs=0, train__joint_epochs=6, train__validate_every=1, **rates)
    done = train(data, how, report=seen.append)
    fit, held_out = random_ratio(data, 0.1, seed=0, max_users=30)
    again = validation_metric(done.model, Graph(fit), fit, held_out, done.config)
    assert again == pytest.approx(done.metrics[stage]) and seen[-1].metric < done.metrics[stage]


def test_patience_counts_validations_without_a_better_value() -> None:
    best, model = Best(patience=2), torch.nn.Linear(1, 1)
    for value, weight in ((0.5, 1.0), (0.5, 2.0), (0.7, 3.0), (0.6, 4.0)):
        torch.nn.init.constant_(model.weight, weight)
        best.offer(value, model)
    assert best.value == 0.7 and best.weights["weight"].item() == 3.0 and not best.exhausted
    best.offer(0.7, model)
    assert best.exhausted and best.weights["weight"].item() == 3.0


def test_what_was_held_out_is_served_again() -> None:
    data = clusters(40, 24)
    assert train(data, config(train__pretrain_epochs=0, train__joint_epochs=0)).graph.normalised.nnz == len(data)


def test_near_the_best_is_within_one_standard_error_of_the_differences() -> None:
    best = np.random.default_rng(0).random(100)
    apart = np.tile([0.3, -0.1], 50)  # on average 0.1, with a standard error of 0.02
    values = np.array([best - 0.2 + apart, best, best - apart, best - apart + 0.085, best - 0.001])
    np.testing.assert_array_equal(near_best(values), [1, 3])
    np.testing.assert_array_equal(near_best(values[:1]), [0])


def test_width_and_filter_are_the_simplest_that_validate_as_well_as_any() -> None:
    data = clusters(60, 40, share=0.2, seed=1)
    how = {"model__kind": "float", "model__encoder": "spectral", "model__dim": 20}
    powers = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
    done = train(data, config(**how))
    settings = done.config
    how_cut = {"seed": settings.train.seed, "max_users": settings.train.validation_users}
    fit, held_out = random_ratio(data, settings.train.validation_share, **how_cut)
    graph = Graph(fit)
    encoder = Spectral.create(graph, settings.model)
    values = [ranking_values(*encoder.cut(20, power).forward(graph), fit, held_out, settings) for power in powers]
    assert settings.model.power == max(powers[way] for way in near_best(np.array(values)))
    assert done.metrics["encoder"] == pytest.approx(values[powers.index(settings.model.power)].mean())
    assert len({value.mean() for value in values}) > 1


def test_a_start_takes_the_place_of_the_pretraining() -> None:
    data, start = clusters(40, 24), random_start(40, 24)
    stages: list[str] = []
    frozen = config(train__joint_lr=0.0)
    done = train(data, frozen, start=start, report=lambda step: stages.append(step.stage))
    assert set(stages) == {"joint"}
    np.testing.assert_array_equal(done.model.get_parameter("encoder.users").detach().numpy(), start["users"])
    with pytest.raises(ArgumentError, match="start must hold the encoder's parameters"):
        train(data, frozen, start={"users": start["users"]})
    start["items"][3, 3] = np.nan
    with pytest.raises(ArgumentError, match="start must be finite"):
        train(data, frozen, start=start)
    with pytest.raises(ArgumentError, match=r"start needs an encoder with parameters"):
        train(data, config(model__encoder="spectral"), start=random_start(40, 24))


@pytest.mark.parametrize("epochs", [(0, 0), (0, 1), (1, 1)])
@pytest.mark.parametrize("users", [0, 30])
@pytest.mark.parametrize("kind", ["hashlgn", "float"])
def test_hardly_any_training_ranks_own_groups_first_too(epochs: tuple[int, int], users: int, kind: str) -> None:
    """The start alone, from singular vectors and by residual quantization, tells groups apart."""
    data = clusters(40, 24, share=0.8)
    how = {"train__pretrain_epochs": epochs[0], "train__joint_epochs": epochs[1], "train__validation_users": users}
    done = train(data, config(model__kind=kind, **how))
    scores = served_scores(done)
    own = np.arange(40)[:, None] % 4 == np.arange(24) % 4
    assert scores[own].mean() > scores[~own].mean() + 0.2
    assert (done.metrics == {}) == (users == 0)


@pytest.mark.parametrize("hash_", HASHES)
@pytest.mark.parametrize(
    ("n_users", "n_items", "bits"), [(2, 2, 8), (2, 2, 128), (3, 5, 8), (3, 5, 64), (5, 3, 8), (30, 20, 128)]
)
def test_very_small_data(n_users: int, n_items: int, hash_: str, bits: int) -> None:
    users, items = np.meshgrid(np.arange(n_users), np.arange(n_items), indexing="ij")
    keep = (users + items) % 2 == 0
    data = Interactions.from_pairs(users[keep], items[keep])
    done = train(
        data,
        config(model__bits=bits, model__hash=hash_, model__dim=None, train__pretrain_epochs=1, train__joint_epochs=1),
    )
    scores, trained = served_scores(done), done.model(done.graph)
    want = (trained.queries @ trained.items.T).detach().numpy()
    np.testing.assert_allclose(scores, want, rtol=2e-3, atol=2e-3 * np.abs(want).max() + 1e-6)


def test_one_user_one_item_and_nothing() -> None:
    named = Config().updated({"model.encoder": "lightgcn"})
    for pairs in (([1, 1], [1, 2]), ([1, 2], [1, 1])):
        with pytest.raises(DataError, match="at least 2 users and 2 items"):
            train(Interactions.from_pairs(*pairs), named)
    data = clusters(8, 8)
    with pytest.raises(DataError, match="0 interactions"):
        train(data.select(np.zeros(len(data), np.bool_)), named)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.kind": "svd"}, r"model\.kind must be one of"),
        ({"model.encoder": "gat"}, r"model\.encoder must be one of"),
        ({"train.loss": "hinge"}, "loss must be one of"),
        ({"train.monitor": "auc"}, r"train\.monitor must be one of"),
        ({"train.joint_epochs": -1}, r"train\.joint_epochs must be an integer of at least 0"),
        ({"train.pretrain_epochs": -1}, r"train\.pretrain_epochs must be an integer of at least 0"),
        ({"train.schedule": "step"}, r"train\.schedule must be one of"),
        ({"model.code_start": "random"}, r"code_start 'random' needs a hash with a sign"),
        (
            {"model.layer_weights": (1.0,) * 4, "model.encoder": "gcn"},
            r"layer_weights must be left out for encoder 'gcn'",
        ),
        ({"train.loss": "distillation"}, r"train\.loss must be one of"),
        ({"train.patience": 0}, r"train\.patience must be a positive integer"),
        ({"train.validation_share": 1.0}, r"train\.validation_share must lie between 0 and 1"),
        ({"train.lr": -1.0}, r"train\.lr must be finite"),
        ({"train.seed": -1}, r"train\.seed must lie in 0 …"),
        ({"train.seed": 2**63}, r"train\.seed must lie in 0 …"),
        ({"train.l2": -1.0}, r"train\.l2 must lie in 0 … 1,000,000"),
        ({"train.user_weight": float("nan")}, r"train\.user_weight must lie in -4 … 4 \(got nan\)"),
        ({"model.dim": -3, "model.encoder": "spectral"}, r"model\.dim must be a positive integer"),
        ({"train.lr": float("nan")}, r"train\.lr must be finite"),
        ({"train.temperature": 0.0}, r"train\.temperature must lie in 0.0001 … 10,000"),
        ({"train.batch_users": 0}, r"train\.batch_users must be a positive integer"),
        ({"model.power": 99.0, "model.encoder": "spectral"}, "power must lie in 0 … 8"),
        ({"train.init": "warm"}, r"train\.init must be 'svd' or 'random' \(got 'warm'\)"),
    ],
)
def test_settings_that_break_a_rule_are_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        train(clusters(40, 24), Config().updated(SMALL | changes))


def test_a_loss_that_explodes_is_said_and_no_model_comes_of_it() -> None:
    how = config(model__similarity="inner", train__lr=1e30, train__pretrain_epochs=8, train__joint_epochs=0)
    with pytest.raises(ArgumentError, match=r"train\.lr must be smaller"):
        train(clusters(40, 24), how)


def test_an_explosion_in_the_last_step_is_said_too() -> None:
    last = {
        "train__pretrain_epochs": 0,
        "train__joint_epochs": 1,
        "train__validation_users": 0,
        "model__similarity": "inner",
    }
    with pytest.raises(ArgumentError, match=r"code_lr must be smaller \(the embeddings are no longer finite\)"):
        train(clusters(40, 24), config(train__joint_lr=1e25, train__code_lr=1e25, **last))


def test_cuda_is_refused_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    named = Config().updated({"model.encoder": "lightgcn"})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ArgumentError, match="without CUDA"):
        train(clusters(8, 8), named, device="cuda")
    with pytest.raises(ArgumentError, match="device must be 'auto', 'cpu' or 'cuda'"):
        train(clusters(8, 8), named, device="gpu")
    with pytest.raises(ArgumentError, match="threads must be a positive integer"):
        train(clusters(8, 8), named, threads=0)


@pytest.mark.parametrize(("schedule", "shares"), [("cosine", [1, 0.75, 0.25]), ("constant", [1, 1, 1])])
def test_the_learning_rate_follows_its_schedule(schedule: str, shares: list[float], monkeypatch) -> None:
    rates, step = [], torch.optim.Adam.step

    def noted(self: torch.optim.Adam, *arguments: object) -> object:
        rates.append([group["lr"] for group in self.param_groups])
        return step(self, *arguments)

    monkeypatch.setattr(torch.optim.Adam, "step", noted)
    settings = config(train__schedule=schedule, train__pretrain_epochs=0, train__joint_epochs=3, train__joint_lr=0.2)
    train(clusters(), settings.updated({"train.batch_users": 1000, "train.code_lr": 0.4}))
    np.testing.assert_allclose(rates, np.outer(shares, [0.2, 0.4]))


def test_codes_learn_from_a_float_model_where_there_is_one() -> None:
    cases: list[tuple[dict[str, object], str]] = [
        ({}, "distillation"),
        ({"train.pretrain_epochs": 0}, "softmax"),
        ({"model.similarity": "inner"}, "softmax"),
        ({"train.loss": "bpr"}, "bpr"),
        ({"train.loss": "bpr", "train.joint_loss": "distillation"}, "distillation"),
        ({"train.joint_loss": "softmax"}, "softmax"),
    ]
    for changes, want in cases:
        found = resolve(Config().updated({"model.encoder": "lightgcn"} | changes))
        assert found.train.joint_loss == want and resolve(found) == found
    with pytest.raises(ArgumentError, match=r"train\.joint_loss must be one of"):
        resolve(config(train__joint_loss="hinge"))
    untaught = config(train__joint_loss="distillation", train__pretrain_epochs=0)
    with pytest.raises(ArgumentError, match=r"train\.joint_loss must not be 'distillation' where no float model"):
        train(clusters(40, 24), untaught)
    done = train(clusters(40, 24), untaught, start=random_start(40, 24))
    assert done.metrics.keys() == {"encoder", "joint"}


def test_distillation_brings_codes_closer_to_what_the_float_model_ranks_first() -> None:
    data = clusters(60, 40, share=0.3)
    how = {"train__validation_users": 0, "model__bits": 8, "model__dim": 16}
    teacher = LightGCN(60, 40, 16, 3)
    start = {name: value.numpy() for name, value in teacher.state_dict().items()}
    apart = []
    for epochs in (0, 30):
        changes = {"train__pretrain_epochs": 0, "train__joint_epochs": epochs, "train__joint_loss": "distillation"}
        done = train(data, config(**changes, **how), start=start)
        queries, items, _ = done.model(done.graph)
        q, x = (torch.nn.functional.normalize(side) for side in teacher(done.graph))
        wanted, found = ((a @ b.T / 0.1).log_softmax(dim=1) for a, b in ((q, x), (queries, items)))
        apart.append((wanted.exp() * (wanted - found)).sum(dim=1).mean().item())
    assert apart[1] < 0.8 * apart[0]
