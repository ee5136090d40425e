"""Small models of every kind, made of random numbers."""

from __future__ import annotations

from functools import cache

import numpy as np

from hashlgn.data import Ids
from hashlgn.inference.model import ServedModel
from hashlgn.inference.recommender import Recommender
from hashlgn.inference.stored import Stored
from hashlgn.scoring.decoders import CodebookDecoder, Decoder, ReweightDecoder
from hashlgn.scoring.histories import FloatHistories
from hashlgn.scoring.items import CodedItems, FloatItems, Items

USERS = 2
ODD = ["it's", 'a "quoted" one', "back\\slash", "tab\tand\nline", "\\N", "{a,b}", "é 漢字 🎬", "", " ", "NULL"]


@cache
def random_model(seed: int, *, scaled: bool | None = None, floats: bool = False, ties: bool = True) -> Recommender:
    """A model whose numbers are random; size, decoder, scales, ids and texts change from seed to seed."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(120, 400))
    count, width = int(rng.choice([2, 4, 8, 16, 32])), int(rng.choice([3, 8, 24]))
    decoder: Decoder = CodebookDecoder(rng.standard_normal((count, 16, width)).astype(np.float32))
    if seed % 3 == 2:
        width = 4 * count
        decoder = ReweightDecoder(*rng.random((2, width)).astype(np.float32))
    packed = rng.integers(0, 256, (n, count // 2), np.uint8)
    scale = rng.uniform(0.2, 3, n).astype(np.float16)
    if ties:  # the exact forms order them by number
        packed[n // 2 : n // 2 + 20], scale[n // 2 : n // 2 + 20] = packed[:20], scale[:20]
    items: Items = CodedItems(packed, decoder, scale if (seed % 4 if scaled is None else scaled) else None)
    if floats:
        items = FloatItems(rng.standard_normal((n, width)).astype(np.float32))
    held = [np.sort(rng.choice(n, min(size, n), replace=False)) for size in (1 + seed % 3, 20)]
    seen = np.cumsum([0, *map(len, held)]), np.concatenate(held).astype(np.int32)
    texts = [f"{ODD[i % len(ODD)]} {i}" for i in range(n)]
    return Recommender(
        ServedModel(
            kind="hashlgn",
            config={},
            user_ids=Ids(np.arange(USERS) + 100),
            item_ids=Ids(texts if seed % 2 else np.arange(n) * 7 - 50),
            items=items,
            stored=Stored.of(*seen),
            histories=FloatHistories(rng.standard_normal((n, width)).astype(np.float32)),
            titles=texts if seed % 5 else None,
            genres=[tuple(ODD[: i % 4]) for i in range(n)] if seed % 7 else None,
        )
    )
