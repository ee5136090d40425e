"""The student: what it learns, that it is deterministic, and that what is exported is what was trained."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import clusters
from hashlgn.config import Config
from hashlgn.data import Interactions
from hashlgn.errors import ArgumentError, DataError
from hashlgn.scoring.decoders import CodebookDecoder
from hashlgn.scoring.histories import CodedHistories, FloatHistories, queries
from hashlgn.scoring.items import CodedItems
from hashlgn.training.objectives import divergence, label_loss
from hashlgn.training.student import Ease, FloatStudent, Mixture, TrainedStudent, graph_filter, train_student
from hashlgn.training.student import loop as student_loop
from hashlgn.training.student import plan as student_plan
from hashlgn.training.student import run as student_run
from hashlgn.training.student.batches import Batch, Candidates, History, candidates, sampling_chances
from hashlgn.training.student.forms import Codes, Vectors
from hashlgn.training.student.graph_filter import GraphFilter
from hashlgn.training.student.loop import Data, Distillation, Labels, fit
from hashlgn.training.student.optimizer import RowAdam
from hashlgn.training.student.plan import (
    bounded,
    bounded_candidates,
    planned_steps,
    resolved,
    step_users,
    teacher_bytes,
    tried,
)
from hashlgn.training.student.teachers import best_items, standardised
from hashlgn.utils.progress import Progress

SMALL = {
    "model.dim": 16,
    "model.bits": 32,
    "model.history_bits": 32,
    "student.epochs": 15,
    "student.distillation_epochs": 8,
    "student.batch_users": 16,
}


def small(changes: dict[str, object] | None = None) -> Config:
    return Config().updated({**SMALL, **(changes or {})})


def trained(data: Interactions, changes: dict[str, object] | None = None) -> TrainedStudent:
    return train_student(data, small(changes), device="cpu", threads=1)


def scores(model: TrainedStudent, data: Interactions) -> np.ndarray:
    return queries(model.histories, data.indptr, data.indices) @ model.answers.decode().T


def unseen_hits(model: TrainedStudent, data: Interactions, groups: int = 4) -> float:
    """Share of users whose best item among those that they do not have is one of their own group."""
    ranked = scores(model, data)
    ranked[data.matrix.toarray() > 0] = -np.inf
    group_of_user = (data.user_ids.values - 1000) % groups
    group_of_item = (data.item_ids.values - 1) % groups
    return float((group_of_item[ranked.argmax(axis=1)] == group_of_user).mean())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"student.teacher": "labels"},
        {"model.answers": "floats"},
        {"model.histories": "floats"},
        {"student.candidates": 16},
        {"train.validation_users": 0},
    ],
    ids=str,
)
def test_finds_the_rest_of_a_group(changes: dict[str, object]) -> None:
    data = clusters(share=0.4)
    assert unseen_hits(trained(data, changes), data) > 0.9


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others() -> None:
    data = clusters()
    first, second, other = trained(data), trained(data), trained(data, {"train.seed": 1})
    assert isinstance(first.answers, CodedItems) and isinstance(first.histories, CodedHistories)
    assert np.array_equal(first.answers.packed, second.answers.packed)
    assert np.array_equal(scores(first, data), scores(second, data))
    assert not np.array_equal(scores(first, data), scores(other, data))


def test_forms_of_the_outcome() -> None:
    data = clusters()
    model = trained(data)
    assert model.answers.bytes_per_item == 6 and model.histories.bytes_per_item == 6
    assert list(model.metrics) in (
        ["labels", "codes", "histories"],
        ["labels", "distillation", "codes", "histories"],
    )
    assert {"labels", "0.8 labels + 0.2 ease"} <= set(model.choice)
    assert {"start", "labels", "ease", "mixtures", "codes", "coding answers"} <= set(model.costs)


def test_an_epoch_is_reported_once_at_its_end() -> None:
    seen: list[Progress] = []
    config = small({"student.teacher": "labels", "student.code_epochs": 2, "student.settle_epochs": 1})
    train_student(clusters(), config, device="cpu", threads=1, report=seen.append)
    ends = [(p.stage, p.epoch) for p in seen if p.epoch_done]
    assert ends == [("labels", e) for e in range(1, 16)] + [("codes", 1), ("codes", 2), ("histories", 1)]


def test_a_training_that_goes_on_ends_in_the_same_bits(tmp_path: Path) -> None:
    data, whole_run = clusters(), trained(clusters())

    class Stopped(Exception):
        pass

    def stop(progress: Progress) -> None:
        if progress.stage == "codes" and progress.epoch == 3:
            raise Stopped

    file = tmp_path / "student.checkpoint"
    with pytest.raises(Stopped):
        train_student(data, small(), device="cpu", threads=1, checkpoint=file, report=stop)
    stages: list[str] = []
    again = train_student(
        data, small(), device="cpu", threads=1, checkpoint=file, report=lambda progress: stages.append(progress.stage)
    )
    assert set(stages) == {"codes", "histories"}
    assert np.array_equal(scores(again, data), scores(whole_run, data))
    assert (again.metrics, again.choice) == (whole_run.metrics, whole_run.choice)
    with pytest.raises(ArgumentError, match="same data and configuration"):
        train_student(data, small({"train.seed": 1}), device="cpu", threads=1, checkpoint=file)
    # The file of the finished training: the last stage trained tables of the one before, in place.
    ended = train_student(data, small(), device="cpu", threads=1, checkpoint=file)
    assert np.array_equal(scores(ended, data), scores(whole_run, data))
    for name in ("packed", "codewords", "weight"):
        assert np.array_equal(getattr(ended.histories, name), getattr(whole_run.histories, name))


def test_a_catalogue_too_large_for_ease_tries_the_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (student_run, student_plan):
        monkeypatch.setattr(module, "EASE_ITEMS", 10)
    data = clusters(share=0.4)
    model = trained(data, {"student.epochs": 1})
    tried_ = (f"{1 - share:g} labels + {share:g} filter" for share in (0.3, 0.5, 0.7))
    assert set(model.choice) == {"labels", *tried_, "1 filter"}
    better = max(model.choice.values()) > model.choice["labels"]
    assert ("distillation" in model.metrics) == better
    assert better
    assert unseen_hits(model, data) > 0.9


@pytest.mark.parametrize("count", [3, 1000])
def test_the_filter_is_the_formula(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_filter, "_BLOCK", 7)
    data = clusters(share=0.4)
    x = data.matrix.toarray().astype(np.float64)
    du, di = np.maximum(x.sum(axis=1), 1), np.maximum(x.sum(axis=0), 1)
    s = x / np.sqrt(du[:, None] * di)
    _, sigma, v = np.linalg.svd(s, full_matrices=False)
    near = s.T @ s
    floor = np.sort(near, axis=1)[:, -min(count, len(di))][:, None]
    near = np.where(near >= floor - 1e-9, near, 0)
    np.testing.assert_allclose(graph_filter.neighbours(data, count).toarray(), near, atol=1e-6)
    monkeypatch.setattr(graph_filter, "_NEIGHBOURS", count)
    linear = x * di**-0.4 @ ((v[:8].T * (sigma[:8] / sigma[0]) ** 0.5) @ v[:8] + near) * di**0.5
    expected = 2 * np.log(np.maximum(linear, 0) / linear.std(axis=1, keepdims=True) + 0.1)
    teacher = GraphFilter(data, sigma[:8].astype(np.float32), v[:8].T.astype(np.float32), torch.device("cpu"))
    batch = data_of(data).batch(np.flatnonzero(x.sum(axis=1)))
    found = teacher.scores(batch, whole(data.n_items)).numpy()
    np.testing.assert_allclose(found, expected[x.sum(axis=1) > 0], atol=1e-3)

    # A GPU adds the same neighbours up in another way.
    monkeypatch.setattr(graph_filter, "_ADDED", 100)
    some = torch.arange(1, data.n_items, 3)
    few = Candidates(some, torch.zeros(len(some)), None)
    ours = teacher.scores(batch, few)
    teacher._table = list(graph_filter._table(teacher._near))
    np.testing.assert_allclose(teacher.scores(batch, whole(data.n_items)).numpy(), found, atol=1e-5)
    np.testing.assert_allclose(teacher.scores(batch, few).numpy(), ours.numpy(), atol=1e-5)


def test_strengths_decide_what_a_user_is() -> None:
    data = clusters(share=0.4)
    ones = dataclasses.replace(data, weights=np.ones(len(data), np.float32), times=np.arange(len(data)))
    plain = trained(data)
    assert np.array_equal(scores(trained(ones, {"model.strength": "weight"}), data), scores(plain, data))
    assert plain.strengths is None
    decayed = trained(ones, {"model.strength": "decay", "model.half_life": 2.0})
    assert decayed.strengths is not None and decayed.strengths[data.indptr[1:] - 1].tolist() == [1.0] * data.n_users
    several = np.diff(data.indptr) >= 3
    assert several.any() and (decayed.strengths[(data.indptr[1:] - 3)[several]] == 0.5).all()
    with pytest.raises(ArgumentError, match="needs interactions with weights"):
        trained(data, {"model.strength": "weight"})
    with pytest.raises(ArgumentError, match="half_life"):
        trained(ones, {"model.strength": "decay"})


def test_validation_says_whether_weights_count() -> None:
    data = clusters(share=0.4)
    rng = np.random.default_rng(0)
    noise = dataclasses.replace(data, weights=(rng.random(len(data)) ** 8 + 1e-3).astype(np.float32))
    model = trained(noise)
    better = model.choice["strength weight"] > model.choice["strength one"]
    assert (model.strengths is not None) == better


def test_too_little_data_is_an_error() -> None:
    with pytest.raises(DataError, match="at least 2 users"):
        train_student(Interactions.from_pairs([1], [2]))


@pytest.mark.parametrize(
    "changes",
    [
        {"model.history_bits": 12},
        {"student.batch_users": 0},
        {"student.hidden": 1.0},
        {"student.lr": 0.0},
        {"student.teacher": "x + + y"},
        {"model.answers": "bits"},
        {"student.epochs": -1},
    ],
    ids=str,
)
def test_a_rule_that_is_broken_is_named(changes: dict[str, object]) -> None:
    with pytest.raises(ArgumentError, match=f"{next(iter(changes))} must"):
        Config().updated(changes)


def whole(n_items: int) -> Candidates:
    return Candidates(None, torch.zeros(n_items), None)


def data_of(interactions: Interactions, limit: int = 1000) -> Data:
    degree = torch.bincount(torch.from_numpy(interactions.indices), minlength=interactions.n_items).clamp(min=1)
    return Data(interactions, None, 16, sampling_chances(degree, limit), torch.device("cpu"), 0)


def test_queries_are_those_that_are_served(seeded: None) -> None:
    data, p = clusters(), torch.randn(40, 8)
    batch = data_of(data).batch(np.arange(data.n_users))
    served = queries(FloatHistories(p.numpy()), data.indptr, data.indices)
    assert np.allclose(batch.history.queries(p).numpy(), served, atol=1e-6)


def test_codes_export_what_they_decode(seeded: None) -> None:
    vectors = torch.randn(30, 8)
    words = torch.randint(16, (30, 6), dtype=torch.uint8)
    codes = Codes.fitted(words, torch.randn(6, 16, 8), vectors)
    packed, codewords, scale = codes.exported()
    served = CodedItems(packed, CodebookDecoder(codewords), scale).decode()
    assert np.allclose(served, codes.vectors().numpy(), rtol=2e-3, atol=2e-3)


def test_losses_are_those_of_autograd(seeded: None) -> None:
    queries_, items = torch.randn(5, 4, requires_grad=True), torch.randn(7, 4, requires_grad=True)
    targets = torch.tensor([0, 0, 2, 4]), torch.tensor([1, 3, 2, 6])
    hidden = torch.tensor([0, 1, 4]), torch.tensor([5, 0, 1])
    weights, log_weight, wanted = torch.rand(5) + 0.1, torch.randn(7) * 0.1, torch.randn(5, 7)

    def reference() -> tuple[torch.Tensor, torch.Tensor]:
        scores_ = queries_ @ items.T + log_weight
        mask = torch.zeros(5, 7, dtype=torch.bool)
        mask[hidden] = True
        logs = scores_.masked_fill(mask, -1e9).log_softmax(dim=1)
        share = weights[targets[0]] / weights[targets[0]].sum()
        teacher = (wanted + log_weight).masked_fill(mask, -1e9).softmax(dim=1)
        return -(share * logs[targets]).sum(), -(weights / weights.sum() * (teacher * logs).sum(dim=1)).sum()

    for value, expected in zip(
        (
            label_loss(queries_, items, targets, hidden, weights, log_weight),
            divergence(queries_, items, wanted.clone(), hidden, weights, log_weight),
        ),
        reference(),
        strict=True,
    ):
        assert torch.allclose(value, expected, atol=1e-5)
        found = torch.autograd.grad(value, (queries_, items))
        for a, b in zip(found, torch.autograd.grad(expected, (queries_, items), retain_graph=True), strict=True):
            assert torch.allclose(a, b, atol=1e-5)


def test_row_adam_is_adam_where_all_rows_are_used(seeded: None) -> None:
    ours = torch.randn(6, 3)
    theirs = torch.nn.Parameter(ours.clone())
    row, adam = RowAdam([ours], [0.1]), torch.optim.Adam([theirs], lr=0.1)
    for step in range(4):
        target = torch.full((6, 3), float(step))
        leaf = row.take(0, None if step % 2 else torch.arange(6))
        ((leaf - target) ** 2).sum().backward()
        row.step(1.0)
        adam.zero_grad()
        ((theirs - target) ** 2).sum().backward()
        adam.step()
        assert torch.allclose(ours, theirs, atol=1e-6)


def test_codes_have_the_gradient_that_pytorch_gives_their_codewords(seeded: None) -> None:
    codes = Codes(torch.randint(0, 16, (30, 4)).to(torch.uint8), torch.randn(64, 6), torch.randn(30, 1))
    items, weights = torch.tensor([3, 3, 29, 0]), torch.randn(4, 6)
    found = []
    for whole in (False, True):
        codewords = codes.codewords.clone().requires_grad_()
        rows = codes.subcodes[items].long() + 16 * torch.arange(4)
        if whole:
            sums = codewords[rows].sum(dim=1) * codes.log_scale[items].exp()
        else:
            sums = codes._decoded(items, codewords, codes.log_scale[items])
        (sums * weights).sum().backward()
        assert codewords.grad is not None
        found.append((sums.detach(), codewords.grad))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_row_adam_leaves_other_rows_alone() -> None:
    table = torch.ones(5, 2)
    adam = RowAdam([table], [0.1])
    adam.take(0, torch.tensor([1, 3])).sum().backward()
    adam.step(1.0)
    assert torch.equal(table[[0, 2, 4]], torch.ones(3, 2)) and (table[[1, 3]] < 1).all()


def test_the_best_items_are_the_teachers_and_not_the_users_own(seeded: None) -> None:
    data = clusters(share=0.4)
    teacher = FloatStudent(Vectors(torch.randn(40, 8)), Vectors(torch.randn(40, 8)), 0.15)
    batches = [data_of(data).batch(users) for users in np.array_split(np.arange(10, data.n_users), 3)]
    found = best_items(teacher, batches, data.n_users, data.n_items, 5).numpy()
    assert (found[:10] == 0).all()
    for batch in batches:
        wanted = teacher.scores(batch, whole(data.n_items)).numpy()
        wanted[batch.history.rows, batch.history.items] = -np.inf
        expected = np.argsort(-wanted, axis=1)[:, :5]
        assert np.array_equal(np.sort(found[batch.users], axis=1), np.sort(expected, axis=1))


def test_likely_items_are_scored_in_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (student_run, student_plan):
        monkeypatch.setattr(module, "EASE_ITEMS", 10)
    data, seen = clusters(share=0.4), []

    def spied(n_items: int, chances: Any, certain: torch.Tensor, *rest: Any) -> Candidates:
        seen.append((None if chances is None else float(chances.sum()), len(certain)))
        return candidates(n_items, chances, certain, *rest)

    monkeypatch.setattr(student_loop, "candidates", spied)
    few = {"student.epochs": 1, "student.candidates": 10, "student.code_epochs": 1, "student.settle_epochs": 1}
    model = trained(data, few)
    assert "likely items" in model.costs and "distillation" in model.metrics
    sampled = [round(chances) for chances, _ in seen if chances is not None]
    # Beside about 13 items of labels as many as make 20 together; half in the distillation.
    assert [set(part) for part in (sampled[:8], sampled[8:-16], sampled[-16:])] == [{7}, {5}, {10}]
    assert len(seen) == len(sampled) and min(likely for _, likely in seen[8:]) >= 20
    # Of too many pairs of users and items nobody asks for the best ones.
    monkeypatch.setattr(student_run, "_LIKELY_PAIRS", 10)
    assert "likely items" not in trained(data, few).costs


def test_candidates_hold_what_is_asked_and_stand_for_the_rest(seeded: None) -> None:
    places, exact, degree = torch.full((1000,), -1), torch.tensor([3, 500, 999]), torch.arange(1, 1001)
    chances = sampling_chances(degree, 100)
    assert chances is not None and chances.max() <= 1 and float(chances.sum()) == pytest.approx(100, rel=1e-3)
    value, found, rng = torch.rand(1000), [], np.random.default_rng(0)
    for _ in range(400):
        among = candidates(1000, chances, exact, places, rng)
        assert among.items is not None and len(among.items.unique()) == len(among.items)
        assert among.items[:3].tolist() == exact.tolist()
        assert torch.equal(places[among.items], torch.arange(len(among.items)))
        found.append(float((among.log_weight.exp() * value[among.items]).sum()))
        places[among.items] = -1
    assert np.mean(found) == pytest.approx(float(value.sum()), abs=4 * np.std(found) / 20)


def test_a_small_catalogue_is_scored_whole() -> None:
    assert sampling_chances(torch.ones(100), 100) is None


def test_a_long_history_is_thinned_for_teacher_and_student(seeded: None) -> None:
    rng, lengths = np.random.default_rng(0), np.repeat([10, 100], 30)  # items of each user
    items = np.concatenate([rng.permutation(200)[:length] for length in lengths])
    data = Interactions.from_pairs(np.repeat(np.arange(60), lengths), items)
    batch, teacher, among = data_of(data).batch(np.arange(60)), Told(), whole(200)
    objective = Distillation(0.5, teacher, 0.9)
    told, asked = objective.split(batch, rng)
    objective.loss(torch.randn(60, 8), torch.randn(200, 8), batch, told, asked, among)
    assert not len(asked.items) and teacher.history is told
    counts = torch.bincount(told.rows, minlength=60)
    assert (counts[:30] == 10).all()
    assert 47 < float(counts[30:].float().mean()) < 73  # between 20 and 100, 60 on average
    assert torch.equal(Distillation(0.5, teacher, 0.0).split(batch, rng)[0].items, batch.history.items)


class Told:
    """A teacher that notes which histories it is asked about."""

    def __init__(self) -> None:
        self.history: History | None = None

    def scores(self, batch: Batch, among: Candidates) -> torch.Tensor:
        self.history = batch.history
        return torch.zeros(batch.history.size, len(among.log_weight))


def test_ease_is_the_closed_form() -> None:
    data = clusters()
    x = data.matrix.toarray().astype(np.float64)
    gram = x.T @ (x.sum(axis=1)[:, None] ** -0.5 * x) + 5 * np.eye(x.shape[1])
    inverse = np.linalg.inv(gram)
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    batch = data_of(data).batch(np.arange(data.n_users))
    found = Ease(data, 5.0, torch.device("cpu")).scores(batch, whole(data.n_items))
    assert np.allclose(found.numpy(), x @ weights, atol=1e-4)


def test_standardised_scores_leave_out_what_a_user_has(seeded: None) -> None:
    data = clusters()
    batch, raw = data_of(data).batch(np.arange(data.n_users)), torch.randn(data.n_users, data.n_items) + 3
    found, seen = standardised(raw.clone(), batch, whole(data.n_items)), torch.from_numpy(data.matrix.toarray() > 0)
    for row in range(5):
        rest = raw[row][~seen[row]]
        assert torch.allclose(found[row][~seen[row]], (rest - rest.mean()) / rest.std(correction=0), atol=1e-4)
        assert not found[row][seen[row]].any()


def test_distillation_brings_a_student_to_its_teacher(seeded: None) -> None:
    data = clusters()
    run = data_of(data)
    teacher = FloatStudent(Vectors(torch.randn(40, 8)), Vectors(torch.randn(40, 8)), 0.5)
    student = FloatStudent(Vectors(torch.randn(40, 8)), Vectors(torch.randn(40, 8)), 0.5)
    losses: list[float] = []
    objective = Distillation(0.5, Mixture((teacher,), (1.0,)), 0.0)
    fit(run, objective, student.histories, student.answers, 150, ((0.02,), (0.02,)), lambda e, d, x: losses.append(x))
    batch = run.batch(np.arange(data.n_users))
    seen = torch.from_numpy(data.matrix.toarray() > 0)
    wanted, found = (s.scores(batch, whole(40)).masked_fill(seen, -100) for s in (teacher, student))
    assert losses[-1] < losses[0]
    assert (wanted.argmax(dim=1) == found.argmax(dim=1)).float().mean() > 0.6


def test_a_loss_that_grows_beyond_bounds_names_the_rate() -> None:
    data = clusters()
    p = Vectors(torch.full((40, 4), float("nan")))
    with pytest.raises(ArgumentError, match=r"student\.lr must be smaller"):
        fit(data_of(data), Labels(0.15, 0.5, 0.0), p, Vectors(torch.randn(40, 4)), 1, ((0.1,), (0.1,)), lambda *_: None)


@pytest.mark.parametrize("name", ["lr", "label_lr", "code_lr", "settle_lr"])
def test_a_rate_that_is_too_high_is_named(name: str) -> None:
    with pytest.raises(ArgumentError, match=rf"student\.{name} must be smaller"):
        train_student(clusters(), small({f"student.{name}": 1e38}), device="cpu", threads=1)


def test_the_cost_of_an_epoch_is_bounded_per_interaction() -> None:
    for interactions, users in ((1_200_000, 38_000), (10_000_000, 200_000), (1_000_000, 400_000)):
        affordable = min(1300 * interactions, 2**30) / users
        assert 2048 <= bounded_candidates(16_384, interactions, users) <= max(2048, affordable)
    assert bounded_candidates(16_384, 1_000_000, 6_000) == 16_384
    assert [bounded(20, steps, 10**7) for steps in (12, 58, 1000)] == [20, 9, 4]
    assert [bounded(20, 1000, n) for n in (10**5, 3 * 10**6, 10**9)] == [2, 3, 4]
    assert [step_users(users, 512) for users in (100, 6_000, 100_000)] == [13, 512, 512]


def test_what_is_left_open_is_filled_in() -> None:
    chosen = [
        (resolved(Config().updated(bits), n).model.history_bits) for bits, n in (({}, 9), ({"model.bits": 64}, 9))
    ]
    assert chosen == [320, 256]
    large = [resolved(Config().updated({"model.bits": bits}), 10_001).model.history_bits for bits in (64, 128, 256)]
    assert large == [256, 320, 512]
    assert [resolved(Config(), n_items).model.dim for n_items in (10_000, 10_001)] == [256, 192]
    assert resolved(Config().updated({"model.bits": 256}), 10_001).model.dim == 256
    assert [resolved(Config(), n_items).student.hidden for n_items in (10_000, 10_001)] == [0.7, 0.5]
    assert resolved(Config().updated({"student.hidden": 0.6}), 10_001).student.hidden == 0.6
    given = {"model.dim": 8, "model.history_bits": 16}
    model = resolved(Config().updated(given), 10**6).model
    assert (model.dim, model.history_bits) == (8, 16)


def test_it_is_said_what_is_tried() -> None:
    labels = Config().updated({"student.teacher": "labels"})
    assert tried(labels, 40) == "labels alone"
    assert tried(Config(), 40).endswith("EASE") and tried(Config(), 10**6).endswith("the graph filter")
    assert tried(Config().updated({"student.teacher": "ease"}), 40) == "what ease teaches"
    assert planned_steps(labels, 12, 500)["distillation"] == 0 < planned_steps(Config(), 12, 500)["distillation"]
    assert teacher_bytes(labels, 40) == 0 < teacher_bytes(Config(), 10**6) < 2**31
