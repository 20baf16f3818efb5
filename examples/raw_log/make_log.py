"""Makes up a raw log with ids of text: `python examples/raw_log/make_log.py FOLDER [IMPRESSIONS]`."""

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv
import pyarrow.parquet as pq

folder, views = Path(sys.argv[1]), int(sys.argv[2] if len(sys.argv) > 2 else 1_000_000) // 10
users, items, start, days, rng = views // 10 + 1, views // 20 + 50, 1_700_000_000, 14, np.random.default_rng(0)
category, taste = rng.integers(0, 5, items), rng.integers(0, 5, users)
ids = {name: pa.array([f"{name}-{at:x}" for at in range(n)]) for name, n in (("u", users), ("sku", items), ("cat", 5))}
user, shown = rng.integers(0, users, views), (items * rng.random((views, 10)) ** 2).astype(int)
entry, time = rng.integers(0, items, views), np.sort(start + rng.random(views) * days * 86_400)
like = 2.0 * (category[shown] == taste[user, None]) + 1.5 * (category[shown] == category[entry, None])
clicked = rng.random(shown.shape) < 1 / (1 + np.exp(3 - like))
view = np.repeat(np.arange(views), 10)
impressions = {
    "view": pc.binary_join_element_wise("v", pc.cast(pa.array(view), pa.string()), "-"),
    "user": ids["u"].take(pa.array(user[view])), "entry": ids["sku"].take(pa.array(entry[view])),
    "sku": ids["sku"].take(pa.array(shown.ravel())), "slot": np.tile(np.arange(1, 11), views),
    "shown_ms": (time[view] * 1000).astype(int), "price": np.round(rng.gamma(2, 10, items), 2)[shown.ravel()],
}  # fmt: skip
what = clicked.ravel().nonzero()[0]  # each user also did something before the log begins
did, before = np.concatenate([shown.ravel()[what], rng.integers(0, items, users * 3)]), np.repeat(np.arange(users), 3)
at = np.concatenate([time[view[what]] + 5, start - rng.random(users * 3) * 30 * 86_400])
kind = np.where(rng.random(len(did)) < 0.1, "order", "click")
who = np.concatenate([user[view[what]], before])
events = {"who": ids["u"].take(pa.array(who)), "sku": ids["sku"].take(pa.array(did)), "what": kind,
          "at": pa.array((at * 1e6).astype("datetime64[us]"))}  # fmt: skip
catalogue = {"sku": ids["sku"], "category": ids["cat"].take(pa.array(category))}
folder.mkdir(parents=True, exist_ok=True)
csv.write_csv(pa.table(impressions), folder / "impressions.csv")
csv.write_csv(pa.table(catalogue), folder / "items.csv")
pq.write_table(pa.table(events), folder / "events.parquet")
