"""Which page views are kept, and the split of each: `pages`, with one row a page view."""

from __future__ import annotations

from datetime import UTC, datetime

from lightning_ccn.data.build.build_report import BuildReport
from lightning_ccn.data.build.engine import Engine
from lightning_ccn.data.build.impressions import AGAIN, SECOND
from lightning_ccn.data.build.source_specs import ExposureSpec
from lightning_ccn.data.build.spec import SplitSpec
from lightning_ccn.data.convert.pages import Cuts
from lightning_ccn.data.dataset import SPLITS
from lightning_ccn.errors import DataError

GAP = "in the gap between splits"
BESIDE = "LEFT JOIN sizes AS s ON t.page_no = s.page_no LEFT JOIN pages AS p ON t.page_no = p.page_no"


def keep_pages(spec: ExposureSpec, split: SplitSpec, engine: Engine, report: BuildReport) -> Cuts:
    """Makes `pages` of `heads` and `exposed`, `shown`, the impressions of the kept pages, and `showings`.

    `showings` has each time that a user saw an item, also again on a page or on a page that is dropped, and in `kept`
    whether an item of a kept page stands for it.

    Returns:
        Where the splits begin.

    Raises:
        DataError: No page view is left to train on.
    """
    engine.table("sizes", "SELECT page_no, COUNT(*) AS n_items FROM exposed WHERE reason IS NULL GROUP BY page_no")
    engine.table(
        "sized",
        f"""
        SELECT h.*, h.us // {SECOND} AS sec, s.n_items
        FROM heads AS h JOIN sizes AS s ON h.page_no = s.page_no
        WHERE s.n_items <= {spec.most_items}
        """,
    )
    cuts = _cuts(split, engine)
    gaps = " OR ".join(f"(sec >= {cut - split.gap} AND sec < {cut})" for cut in (cuts.validation, cuts.test))
    of_split = f"CASE WHEN sec >= {cuts.test} THEN 2 WHEN sec >= {cuts.validation} THEN 1 ELSE 0 END"
    engine.table("pages", f"SELECT *, {of_split} AS split FROM sized WHERE NOT ({gaps})")
    engine.table("shown", "SELECT e.* FROM exposed AS e JOIN pages AS p ON e.page_no = p.page_no WHERE reason IS NULL")
    engine.table(
        "showings",
        f"""
        SELECT e.user_key, e.item_key, e.us, e.page_no,
            CASE WHEN p.page_no IS NOT NULL AND COALESCE(e.reason, '{AGAIN}') = '{AGAIN}' THEN 1 ELSE 0 END AS kept
        FROM exposed AS e LEFT JOIN pages AS p ON e.page_no = p.page_no
        """,
    )
    _count(spec, engine, report)
    if not report.counts["pages"]["kept"][SPLITS[0]]:
        dropped = report.counts["impressions"].get("dropped", {})
        if not any(report.counts["pages"]["kept"].values()) and not dropped.get(GAP):
            why = ", ".join(f"{reason} ({count:,})" for reason, count in dropped.items())
            raise DataError(f"no page view is left; the impressions were dropped: {why}; change the specification")
        begin = datetime.fromtimestamp(cuts.validation, UTC)
        raise DataError(
            f"no page view is left to train on: validation begins at {begin:%Y-%m-%d %H:%M:%S} UTC; change split: in "
            "the specification"
        )
    engine.drop("heads", "exposed", "sizes", "sized")
    return cuts


def _cuts(split: SplitSpec, engine: Engine) -> Cuts:
    if split.by_date:
        return Cuts(round(split.validation), round(split.test))
    whole = engine.rows("SELECT COUNT(*) AS n, MAX(sec) AS last FROM sized")[0]
    pages = whole["n"]
    if not pages:
        return Cuts(0, 0)
    latest = pages - round(pages * split.test)
    # a split begins with the first second up to which there are more pages than before the split
    row = engine.rows(
        f"""
        SELECT
            MIN(CASE WHEN up_to > {latest - round(pages * split.validation)} THEN sec END) AS validation,
            MIN(CASE WHEN up_to > {latest} THEN sec END) AS test
        FROM (
            SELECT sec, SUM(n) OVER (ORDER BY sec ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS up_to
            FROM (SELECT sec, COUNT(*) AS n FROM sized GROUP BY sec) AS seconds
        ) AS counted
        """
    )[0]
    after = whole["last"] + 1
    return Cuts(*(after if row[name] is None else row[name] for name in ("validation", "test")))


def _count(spec: ExposureSpec, engine: Engine, report: BuildReport) -> None:
    """Every impression is on a kept page, or is counted with the reason why it is not; and so is every page."""
    time = f"CAST(t.us // {SECOND} AS VARCHAR)"
    long_ = f"more than {spec.most_items} items"
    report.dropped(
        "impressions",
        engine,
        f"""
        SELECT reason, COUNT(*) AS count, MIN(example) AS example
        FROM (
            SELECT
                CASE
                    WHEN t.reason IS NOT NULL THEN t.reason
                    WHEN s.n_items > {spec.most_items} THEN 'on a page view of {long_}'
                    WHEN p.page_no IS NULL THEN '{GAP}'
                END AS reason,
                'user ' || CAST(t.user_key AS VARCHAR) || ', item ' || CAST(t.item_key AS VARCHAR)
                    || ', time ' || {time} AS example
            FROM exposed AS t {BESIDE}
        ) AS judged
        GROUP BY reason
        """,
    )
    report.add("impressions", "kept", "total", engine.rows("SELECT COUNT(*) AS n FROM shown")[0]["n"])
    report.add("pages", "read", "total", engine.rows("SELECT COUNT(*) AS n FROM heads")[0]["n"])
    report.dropped(
        "pages",
        engine,
        f"""
        SELECT reason, COUNT(*) AS count, MIN(example) AS example
        FROM (
            SELECT
                CASE
                    WHEN s.page_no IS NULL THEN 'no impression left'
                    WHEN s.n_items > {spec.most_items} THEN '{long_}'
                    WHEN p.page_no IS NULL THEN '{GAP}'
                END AS reason,
                'user ' || CAST(t.user_key AS VARCHAR) || ', time ' || {time} AS example
            FROM heads AS t {BESIDE}
        ) AS judged
        GROUP BY reason
        """,
    )
    counts = {row["split"]: row["n"] for row in engine.rows("SELECT split, COUNT(*) AS n FROM pages GROUP BY split")}
    for at, name in enumerate(SPLITS):
        report.add("pages", "kept", name, counts.get(at, 0))
