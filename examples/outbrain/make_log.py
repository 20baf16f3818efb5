"""Makes up a log in the format of Outbrain's, of which it has nothing: `python make_log.py FOLDER [DISPLAYS]`."""

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv

folder, displays = Path(sys.argv[1]), int(sys.argv[2] if len(sys.argv) > 2 else 10_000)
users, read, promoted, days, rng = displays // 5 + 1, 400, 100, 14, np.random.default_rng(0)
documents = 1000 + rng.permutation(read + promoted)  # those that are read, then those that ads lead to
category = 1100 + rng.integers(0, 6, read + promoted)
ads = 2 * promoted  # two lead to each document
uuid = np.array([f"{number:014x}" for number in rng.permutation(users) * 7_919 + 1])
platform = np.arange(users) % 3 + 1
region = np.array([f"XX>R{user % 4}>{user % 9}" for user in range(users)])

user = rng.integers(0, users, displays)
reading = rng.integers(0, read, displays)
at = np.sort(rng.integers(0, days * 86_400_000, displays))  # milliseconds since the log's own beginning
shown = np.sort(np.argsort(rng.random((displays, ads)))[:, :6])
like = 1.5 * (category[read + shown // 2] == category[reading, None]) + rng.gumbel(size=shown.shape)
clicked = like == like.max(1, keepdims=True)  # one of each display

# A user views the document of a display, what the ad that was clicked leads to, and more at other times.
more = rng.integers(0, users, displays * 4)
who = np.concatenate([user, user, more])
what = np.concatenate([reading, read + shown[clicked] // 2, rng.integers(0, read, len(more))])
when = np.concatenate([at, at + 4_000, rng.integers(0, days * 86_400_000, len(more))])

display = np.arange(1, displays + 1)
tables = {
    "events": {"display_id": display, "uuid": uuid[user], "document_id": documents[reading], "timestamp": at,
               "platform": platform[user], "geo_location": region[user]},
    "clicks_train": {"display_id": np.repeat(display, shown.shape[1]), "ad_id": 1 + shown.ravel(),
                     "clicked": clicked.ravel().astype(int)},
    "promoted_content": {"ad_id": 1 + np.arange(ads), "document_id": documents[read + np.arange(ads) // 2],
                         "campaign_id": 1 + np.arange(ads) // 4, "advertiser_id": 1 + np.arange(ads) // 8},
    "documents_meta": {"document_id": documents, "source_id": documents % 20, "publisher_id": documents % 10,
                       "publish_time": pa.nulls(len(documents), pa.string())},
    "documents_categories": {"document_id": np.concatenate([documents, documents]),
                             "category_id": np.concatenate([1100 + (category - 1099) % 6, category]),
                             "confidence_level": np.repeat([0.07, 0.92], len(documents))},
    "page_views_sample": {"uuid": uuid[who], "document_id": documents[what], "timestamp": when,
                          "platform": platform[who], "geo_location": region[who],
                          "traffic_source": rng.integers(1, 4, len(who))},
}  # fmt: skip
folder.mkdir(parents=True, exist_ok=True)
for name, columns in tables.items():
    csv.write_csv(pa.table(columns), folder / f"{name}.csv")
