"""The numbers of a measurement as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.numbers import AROUND, SYSTEMS, Numbers, Spread, least, of_turns

TITLES = {
    "ours_din": "**ours, DIN**",
    "ours_sim": "**ours, SIM**",
    "ours_tan": "**ours, TAN**",
    "ours_ccn": "**ours, CCN**",
    "instances_din": "ours, DIN, each item a page",
    "instances_sim": "ours, SIM, each item a page",
    "fuxictr_din": "FuxiCTR, DIN",
    "fuxictr_din_dice": "FuxiCTR, DIN with Dice",
    "rechub_din": "torch-rechub, DIN",
    "rechub_din_dice": "torch-rechub, DIN with Dice",
    "deepctr_din": "DeepCTR-Torch, DIN",
    "deepctr_din_dice": "DeepCTR-Torch, DIN with Dice",
    "fuxictr_sim": "FuxiCTR, SIM",
}
NAMES = {"din": "DIN", "sim": "SIM", "tan": "TAN", "ccn": "CCN"}
PARTS = (
    "reader",
    "lookup",
    "attention",
    "collaborative module",
    "head",
    "rest of the forward pass",
    "losses",
    "backward",
    "table update",
    "dense update",
    AROUND,
)


def contest(one: Numbers, two: Numbers | None) -> str:
    """Speed and memory of all contestants; one thread, and two if there is a measurement."""
    both = two is not None
    rows = [["", "items per CPU-second", "times the fastest peer", "peak memory, MiB"]]
    if both:
        rows[0].insert(2, "items per second, two threads")
    for system in SYSTEMS:
        peer = one.fastest_peer(system)
        names = [*one.peers(system), f"instances_{system}", f"ours_{system}"]
        for name in (name for name in names if name in one.entrants):
            own, against = one.speed(name), one.speed(peer) if peer else None
            times = f"{own.median / against.median:.1f}" if against and name not in one.peers(system) else ""
            row = [TITLES[name], spread(own), times, f"{one.memory(name):,.0f}"]
            if two is not None:
                row.insert(2, spread(two.speed(name)) if name in two.entrants else "")
            rows.append(row)
    return table(rows)


def setting(one: Numbers) -> str:
    """What a page view of the contest has, and the tables."""
    shape = one.about["shape"]
    batch = one.entrants["ours_sim"]["items_of_batch"]
    return (
        f"- The same pages: {shape['items']} items, a user, a trigger, {shape['long']} behaviours of which the last "
        f"{shape['short']} are the short sequence. An item has an id, a category (of {shape['categories']}) and a "
        f"seller. {batch:,} items a batch.\n"
        f"- The same tables: {shape['catalogue']:,} items, {shape['users']:,} users."
    )


def steps(one: Numbers) -> str:
    """Milliseconds of a step of our systems: end to end, without the reader, in a bare loop."""
    rows = [["milliseconds a step", "end to end", "without the reader", "bare loop", "items per CPU-second, bare loop"]]
    for system in SYSTEMS:
        times = [one.step(f"ours_{system}", turn) for turn in ("epoch", "kept", "bare")]
        speed = one.speed(f"ours_{system}", "bare")
        rows.append([NAMES[system], *(spread(time, 1_000, 1) for time in times), spread(speed)])
    return table(rows)


def goals(one: Numbers) -> str:
    """What the project wants to reach, and what was measured."""
    rows = [["goal", "measured", "reached"]]
    for system in ("din", "sim"):
        if peer := one.fastest_peer(system):
            times, most = (
                speed / one.speed(peer).median for speed in (one.speed(f"ours_{system}").median, one.limit(system))
            )
            words = f"{times:.1f} times; {most:.1f} if its matrix products ran at the peak and nothing else took time"
            rows.append([f"{NAMES[system]}: 20 times the fastest peer", words, _yes(times >= 20)])
    for system in ("din", "sim"):
        times = one.speed(f"ours_{system}").median / one.speed(f"instances_{system}").median
        rows.append([f"{NAMES[system]}: 4 times our own instance-major feed", f"{times:.1f} times", _yes(times >= 4)])
    for system in ("sim", "ccn"):
        share = one.dense_share(system)
        rows.append([f"{NAMES[system]}: half of the matmul peak in the dense part", f"{share:.0%}", _yes(share >= 0.5)])
    for system in SYSTEMS:
        cost = one.framework_cost(system)
        words = f"{NAMES[system]}: {AROUND} cost at most 3% of a bare loop"
        rows.append([words, f"{spread(cost, 100, 1)}%", _yes(cost.median <= 0.03)])
    cost = one.contrast_cost()
    rows.append(
        ["a step of CCN costs at most 5% more than TAN's", f"{spread(cost, 100, 1)}%", _yes(cost.median <= 0.05)]
    )
    for system in ("din", "sim"):
        lowest = least(one.peers(system), one.memory)
        if lowest is not None:
            own = one.memory(f"ours_{system}")
            words = f"{NAMES[system]}: no more memory than the peers"
            rows.append([words, f"{own:,.0f} MiB; the least of a peer is {lowest:,.0f} MiB", _yes(own <= lowest)])
    return table(rows)


def parts(one: Numbers) -> str:
    """Where a step's time goes."""
    rows = [["milliseconds a step", *(NAMES[system] for system in SYSTEMS)]]
    of_system = {system: one.parts(system) for system in SYSTEMS}
    for part in PARTS:
        cells = []
        for found in of_system.values():
            seconds = found.get(part)
            cells.append("" if seconds is None else f"{1_000 * seconds:.1f} ({seconds / sum(found.values()):.0%})")
        rows.append([part, *cells])
    rows.append(["sum", *(f"{1_000 * sum(found.values()):.1f}" for found in of_system.values())])
    return table(rows)


def limits(one: Numbers) -> str:
    """The machine's limits, and how near a step comes."""
    machine = [["product", "GFLOP per second", "of the best"]]
    for name, product in one.products().items():
        machine.append([name, spread(product, 1e-9, 1), f"{product.median / one.peak:.0%}"])
    bandwidth = f"A copy of 256 MiB reads and writes {spread(one.bandwidth, 1e-9, 1)} GB a second."
    head = ["", "GFLOP a step", "GB a step", "at the peak, ms", "at the bandwidth, ms", "measured, ms", "of the peak"]
    rows = [head]
    for system in SYSTEMS:
        work, seconds = one.work(system), one.dense_seconds(system)
        rows.append(
            [
                f"{NAMES[system]}, dense part",
                f"{work['flops'] / 1e9:.2f}",
                f"{work['bytes'] / 1e9:.2f}",
                f"{1_000 * work['flops'] / one.peak:.1f}",
                f"{1_000 * work['bytes'] / one.bandwidth.median:.1f}",
                f"{1_000 * seconds:.1f}",
                f"{one.dense_share(system):.0%}",
            ]
        )
    for system in ("ccn",):
        work, found = one.work(system), one.parts(system)
        seconds = found["lookup"] + found["table update"]
        limit = f"{1_000 * work['table_bytes'] / one.bandwidth.median:.1f}"
        rows.append(["tables", "", f"{work['table_bytes'] / 1e9:.2f}", "", limit, f"{1_000 * seconds:.1f}", ""])
    return "\n\n".join([table(machine), bandwidth, table(rows)])


def reader(one: Numbers) -> str:
    """Items that the reader makes."""
    titles = {"world": "default synthetic world", "histories": "1,000 long behaviours a page"}
    rows = [["pages", "items per CPU-second"]]
    for name, title in titles.items():
        rows.append([title, spread(of_turns(one.reader[name], "epoch", lambda a: a["items"] / a["seconds"]))])
    return table(rows)


def scaling(one: Numbers) -> str:
    """How the cost of a CCN step grows with the work."""
    found = one.scaling
    return "\n\n".join(
        [
            "Larger tables; the work of a step stays the same:\n\n" + _series(found["rows"], "rows", "step"),
            *(["DIN end to end, ours and FuxiCTR's:\n\n" + _against(found["din_rows"])] if "din_rows" in found else []),
            "More items on a page, in batches of equally many items:\n\n"
            + _series(found["items"], "items a page", "item"),
            "Longer histories; the search finds a quarter:\n\n"
            + _series(found["sequences"], "long behaviours a page", "distinct item"),
            "Two ranks, with a batch each:\n\n" + _ranks(found["ranks"]),
        ]
    )


def _series(points: dict[str, Any], title: str, unit: str) -> str:
    """Cost of a unit of work at each point.

    Args:
        points: The contestants by the quantity that grows.
        title: Name of that quantity.
        unit: What a unit of work is.
    """
    rows = [[title, "bare step, ms", "GFLOP a step", f"microseconds per {unit}", "of the first", "end to end, ms"]]
    costs: list[float] = []
    for value, point in points.items():
        bare = of_turns(point, "bare", lambda answer: answer["seconds"] / answer["steps"])
        whole = of_turns(point, "epoch", lambda answer: answer["seconds"] / answer["steps"])
        units = {"step": 1, "item": point["items_of_batch"], "distinct item": point["distinct_items"]}[unit]
        costs.append(bare.median / units)
        flops, cost, ratio = f"{point['work']['flops'] / 1e9:.2f}", f"{1e6 * costs[-1]:,.1f}", costs[-1] / costs[0]
        rows.append([f"{int(value):,}", spread(bare, 1_000, 1), flops, cost, f"{ratio:.2f}", spread(whole, 1_000, 1)])
    if unit == "step":  # its cost is that of the second column
        rows = [row[:3] + row[4:] for row in rows]
    return table(rows)


def _against(points: dict[str, Any]) -> str:
    rows = [["rows", "items per CPU-second, FuxiCTR", "ours", "times", "peak memory, MiB, FuxiCTR", "ours"]]
    for rows_of_table in (name.removeprefix("ours ") for name in points if name.startswith("ours ")):
        sides = [points[f"{side} {rows_of_table}"] for side in ("peer", "ours")]
        peer, ours = (of_turns(side, "epoch", lambda answer: answer["items"] / answer["seconds"]) for side in sides)
        memory = [f"{side['peak_mib'] - side['feed_mib']:,.0f}" for side in sides]
        times = f"{ours.median / peer.median:.1f}"
        rows.append([f"{int(rows_of_table):,}", spread(peer), spread(ours), times, *memory])
    return table(rows)


def _ranks(points: dict[str, Any]) -> str:
    rows = [["ranks", "items per CPU-second of all ranks", "of one rank"]]
    speeds = {value: of_turns(point, "epoch", lambda a: a["items"] / a["seconds"]) for value, point in points.items()}
    first = next(iter(speeds.values())).median
    return table([*rows, *([value, spread(s), f"{s.median / first:.2f}"] for value, s in speeds.items())])


def made_with(numbers: Iterable[Numbers]) -> str:
    """Machine, versions and settings, a paragraph a measurement."""
    words = []
    for about in (one.about for one in numbers):
        git, effort = about["git"], about["effort"]
        commit = f"commit {git['commit'][:10]}{' with changes' if git['changed'] else ''}" if git else "no commit"
        clock = "CPU time" if about["clock"] == "cpu" else "wall clock"
        versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
        words.append(
            f"Measured on {about['date']}: {about['cpu']}, {about['cores']} cores, {about['memory_gib']} GiB, load "
            f"{about['load']:.1f}; {about['threads']} thread{'s' if about['threads'] > 1 else ''}, {clock}; "
            f"{effort['rounds']} rounds of {effort['steps']} steps ({effort['peer_steps']} for peers); {commit}; "
            f"{versions}."
        )
    return "\n\n".join(words)


def table(rows: Sequence[Sequence[str]]) -> str:
    """A table whose first row is its head."""
    head, *body = rows
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *body))


def spread(values: Spread, factor: float = 1.0, digits: int = 0) -> str:
    """A median with the least and the greatest value."""
    low, middle, high = (f"{factor * value:,.{digits}f}" for value in (values.low, values.median, values.high))
    return f"{middle} ({low} to {high})"


def _yes(reached: bool) -> str:
    return "yes" if reached else "no"
