"""The contrastive losses against a loop over items written from the paper's printed formulas."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_ccn.nn import contrastive
from lightning_ccn.nn.contrastive import (
    AttractionPairs,
    PageDegrees,
    attraction_label_weights,
    attraction_weight,
    check_scale,
)

TAU, XI = 0.5, 0.8
Loss = partial[Tensor]


def degrees_of(degree: Tensor, clicks: Tensor, page_lengths: Tensor) -> PageDegrees:
    page = torch.repeat_interleave(page_lengths, output_size=len(degree))
    return PageDegrees.of(degree, clicks, page, len(page_lengths))


def repulsion_loss(degree: Tensor, clicks: Tensor, page_lengths: Tensor, **options: Any) -> Tensor:
    return contrastive.repulsion_loss(degrees_of(degree, clicks, page_lengths), **options)


def attraction_loss(degree: Tensor, clicks: Tensor, page_lengths: Tensor, **options: Any) -> Tensor:
    return contrastive.attraction_loss(degrees_of(degree, clicks, page_lengths), **options)


def paper_repulsion(
    degree: Tensor,
    clicks: Tensor,
    page_lengths: Tensor,
    *,
    temperature: float,
    orientation: str = "label",
    detach_weights: bool = False,
) -> Tensor:
    """Eq. 5 and 6, item by item."""
    loss = degree.sum() * 0
    for s, y in zip(degree.split(page_lengths.tolist()), clicks.split(page_lengths.tolist()), strict=True):
        for i in range(len(s)):
            sign = -1 if orientation == "label" and y[i] == 0 else 1
            target, negatives = sign * s[i], sign * s[y != y[i]]
            if len(negatives) == 0:
                continue
            weight = torch.exp(-negatives / temperature) / torch.exp(-negatives / temperature).sum()
            weight = weight.detach() if detach_weights else weight
            weighted = (weight * torch.exp(negatives / temperature)).sum()
            own = torch.exp(target / temperature)
            loss = loss - torch.log(own / (own + len(negatives) * weighted))
    return loss / len(degree)


def paper_attraction(
    degree: Tensor, clicks: Tensor, page_lengths: Tensor, *, scale: float, detach_weights: bool = False
) -> Tensor:
    """Eq. 7 and 8, item by item, with the cosine of the two angles' difference."""
    loss = degree.sum() * 0
    for s, y in zip(degree.split(page_lengths.tolist()), clicks.split(page_lengths.tolist()), strict=True):
        for i in range(len(s)):
            positives = s[(y == y[i]) & (torch.arange(len(s)) != i)]
            if len(positives) == 0:
                continue
            weight = torch.exp(-positives / scale) / torch.exp(-positives / scale).sum()
            weight = weight.detach() if detach_weights else weight
            weighted = (weight * torch.exp(positives / scale)).sum()
            loss = loss - torch.log(0.5 * torch.cos(torch.exp(s[i] / scale) - weighted) + 0.5)
    return loss / len(degree)


def ragged_pages(seed: int, low: float = 0.0, high: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """40 pages of 0 to 9 items in float64; pages of one label, of one item and of none among them."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(0, 10, (40,), generator=generator)
    lengths[:2] = torch.tensor([0, 1])
    items = int(lengths.sum())
    clickiness = torch.rand(40, generator=generator).round(decimals=1).repeat_interleave(lengths)
    clicks = (torch.rand(items, generator=generator) < clickiness).to(torch.int64)
    degree = low + (high - low) * torch.rand(items, generator=generator, dtype=torch.float64)
    return degree, clicks, lengths


LOSSES = [
    pytest.param(
        partial(repulsion_loss, temperature=TAU, orientation=orientation, detach_weights=detach),
        partial(paper_repulsion, temperature=TAU, orientation=orientation, detach_weights=detach),
        id=f"repulsion-{orientation}-{'detached' if detach else 'weights'}",
    )
    for orientation in ("label", "printed")
    for detach in (False, True)
] + [
    pytest.param(
        partial(attraction_loss, scale=XI, detach_weights=detach),
        partial(paper_attraction, scale=XI, detach_weights=detach),
        id=f"attraction-{'detached' if detach else 'weights'}",
    )
    for detach in (False, True)
]
OURS = [pytest.param(case.values[0], id=case.id) for case in LOSSES]


def value_and_gradient(loss: Loss, degree: Tensor, clicks: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    degree = degree.detach().requires_grad_()
    value = loss(degree, clicks, lengths)
    (gradient,) = torch.autograd.grad(value, degree)
    return value.detach(), gradient


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("ours", "paper"), LOSSES)
def test_value_and_gradient_are_those_of_the_printed_formulas(ours: Loss, paper: Loss, seed: int) -> None:
    pages = ragged_pages(seed)
    torch.testing.assert_close(
        value_and_gradient(ours, *pages), value_and_gradient(paper, *pages), rtol=1e-7, atol=1e-9
    )


@pytest.mark.parametrize(("ours", "paper"), LOSSES)
def test_float32_is_right(ours: Loss, paper: Loss) -> None:
    # e^{s / 0.5} with s up to 50 / 0.5 is e^200, where float32 ends at e^88. The attraction is for bounded degrees.
    low, high = (0, 1) if ours.func is attraction_loss else (-50 / TAU, 50 / TAU)
    degree, clicks, lengths = ragged_pages(2, low, high)
    degree = degree.float().double()  # the same numbers for both
    value, gradient = value_and_gradient(ours, degree.float(), clicks, lengths)
    expected_value, expected_gradient = value_and_gradient(paper, degree, clicks, lengths)
    assert value.dtype == gradient.dtype == torch.float32
    torch.testing.assert_close(value.double(), expected_value, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient.double(), expected_gradient, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("scale", [0.75, XI, 10.0])
def test_float32_is_right_where_one_item_outweighs_all_others_of_its_set(scale: float) -> None:
    # The share e^{-s / 0.75} of the item at 0 is 1.9 times the sum of the others'.
    degree = torch.tensor([0.0, 1.0, 1.0], dtype=torch.float64)
    page = torch.ones(3), torch.tensor([3])
    value, gradient = value_and_gradient(partial(attraction_loss, scale=scale), degree.float(), *page)
    expected = value_and_gradient(partial(paper_attraction, scale=scale), degree, *page)
    torch.testing.assert_close((value.double(), gradient.double()), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("ours", "paper"), LOSSES)
def test_equal_degrees_are_separate_items(ours: Loss, paper: Loss) -> None:
    degree = torch.tensor([0.2, 0.2, 0.7, 0.7, 0.2, 0.2, 0.7], dtype=torch.float64)
    page = torch.tensor([1, 1, 1, 0, 0, 0, 0]), torch.tensor([7])
    torch.testing.assert_close(value_and_gradient(ours, degree, *page), value_and_gradient(paper, degree, *page))


@pytest.mark.parametrize("orientation", ["label", "printed"])
def test_gradcheck_of_the_repulsion(orientation: str) -> None:
    degree, clicks, lengths = ragged_pages(3)
    loss = partial(repulsion_loss, clicks=clicks, page_lengths=lengths, temperature=TAU, orientation=orientation)
    assert torch.autograd.gradcheck(loss, degree.requires_grad_())


def test_gradcheck_of_the_attraction() -> None:
    degree, clicks, lengths = ragged_pages(3)
    loss = partial(attraction_loss, clicks=clicks, page_lengths=lengths, scale=XI)
    assert torch.autograd.gradcheck(loss, degree.requires_grad_())


@pytest.mark.parametrize("ours", OURS)
def test_items_without_a_set_count_in_the_mean_with_loss_zero(ours: Loss) -> None:
    degree, clicks, lengths = torch.tensor([0.9, 0.1, 0.3]), torch.tensor([1, 1, 0]), torch.tensor([3])
    alone = 2 * 3  # two more pages for each item of this one, one item each: no set of either kind
    padded = torch.cat([degree, torch.full((alone,), 0.7)])
    value = ours(padded, torch.cat([clicks, torch.ones(alone)]), torch.tensor([3] + [1] * alone))
    torch.testing.assert_close(value, ours(degree, clicks, lengths) / 3)


@pytest.mark.parametrize("size", [0.5, 1e4, 1e30])
@pytest.mark.parametrize("ours", OURS)
def test_where_no_item_has_a_set_loss_and_gradient_are_exactly_zero(ours: Loss, size: float) -> None:
    # for the attraction one item of each label on the first page, for the repulsion one label on each page
    clicks = torch.tensor([1, 0, 0] if ours.func is attraction_loss else [1, 1, 0])
    degree = torch.tensor([size, -size, size])
    value, gradient = value_and_gradient(ours, degree, clicks, torch.tensor([0, 2, 0, 1]))
    assert value.item() == 0
    assert gradient.tolist() == [0, 0, 0]


@pytest.mark.parametrize("pages", [0, 3])
@pytest.mark.parametrize("ours", OURS)
def test_a_batch_without_items_gives_a_zero_that_can_be_backpropagated(ours: Loss, pages: int) -> None:
    parameter = torch.ones(4, requires_grad=True)
    value = ours(parameter[:0], torch.zeros(0), torch.zeros(pages, dtype=torch.int64))
    value.backward()
    assert value.item() == 0
    assert parameter.grad is not None
    assert parameter.grad.tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("ours", OURS)
def test_half_precision_degrees_are_worked_on_in_float32(ours: Loss, dtype: torch.dtype) -> None:
    degree, clicks, lengths = ragged_pages(4)
    degree = degree.to(dtype)
    with torch.autocast("cpu", dtype):
        value, gradient = value_and_gradient(ours, degree, clicks, lengths)
    expected_value, expected_gradient = value_and_gradient(ours, degree.float(), clicks, lengths)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, expected_value)
    torch.testing.assert_close(gradient, expected_gradient.to(dtype))


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32, torch.int64])
@pytest.mark.parametrize("ours", OURS)
def test_labels_may_have_any_dtype(ours: Loss, dtype: torch.dtype) -> None:
    degree, clicks, lengths = ragged_pages(5)
    torch.testing.assert_close(ours(degree, clicks.to(dtype), lengths), ours(degree, clicks.to(torch.uint8), lengths))


@pytest.mark.parametrize("ours", OURS)
def test_memory_grows_with_items_and_not_with_pairs_or_padding(ours: Loss) -> None:
    # A page of 200,000 items has 4e10 pairs, and padding 100,000 more pages to it takes as much: neither fits.
    lengths = torch.cat([torch.tensor([200_000]), torch.ones(100_000, dtype=torch.int64)])
    items = int(lengths.sum())
    clicks = torch.arange(items) % 5 == 0
    value, gradient = value_and_gradient(ours, torch.linspace(0, 1, items), clicks, lengths)
    assert value.isfinite()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("ours", OURS)
def test_no_step_reads_a_value_back_from_the_device(ours: Loss) -> None:
    # Meta tensors have no values, so whatever asks for one (.item(), boolean indexing, nonzero) raises.
    with torch.device("meta"):
        degree, lengths = torch.zeros(12, requires_grad=True), torch.zeros(3, dtype=torch.int64)
        ours(degree, torch.zeros(12), lengths).backward()
    assert degree.grad is not None


def two_angles_apart(difference: float) -> Tensor:
    """Degrees of two items at the angles 1 and 1 + difference, as float32 has them."""
    return XI * torch.tensor([1.0, 1.0 + difference]).log()


@pytest.mark.parametrize("difference", [math.pi - 1e-4, math.pi, math.pi + 1e-4])
def test_angles_pi_apart_have_a_finite_loss_and_gradient(difference: float) -> None:
    page = two_angles_apart(difference), torch.ones(2), torch.tensor([2])
    value, gradient = value_and_gradient(partial(attraction_loss, scale=XI), *page)
    assert value.isfinite()
    assert gradient.abs().max() < 1e4


def test_angles_almost_pi_apart_keep_float32_digits() -> None:
    # Here (1 + cos x) / 2 is 6e-6, of which a float32 sum of two numbers near 1 has two digits left.
    degree, page = two_angles_apart(math.pi - 0.005), (torch.ones(2), torch.tensor([2]))
    value, gradient = value_and_gradient(partial(attraction_loss, scale=XI), degree, *page)
    expected = value_and_gradient(partial(paper_attraction, scale=XI), degree.double(), *page)
    torch.testing.assert_close((value.double(), gradient.double()), expected, rtol=5e-4, atol=0)


def minimised(clicked: int, unclicked: int, orientation: str) -> tuple[Tensor, Tensor]:
    """Degrees of one page's clicked and unclicked items when nothing but the repulsion drives them."""
    generator = torch.Generator().manual_seed(0)
    free = (0.1 * torch.randn(clicked + unclicked, generator=generator)).requires_grad_()
    clicks = torch.arange(clicked + unclicked) < clicked
    optimizer = torch.optim.Adam([free], lr=0.2)
    for _ in range(300):
        optimizer.zero_grad()
        loss = repulsion_loss(
            torch.sigmoid(free), clicks, torch.tensor([len(free)]), temperature=TAU, orientation=orientation
        )
        loss.backward()
        optimizer.step()
    return torch.sigmoid(free[:clicked]).detach(), torch.sigmoid(free[clicked:]).detach()


@pytest.mark.parametrize(("clicked", "unclicked"), [(1, 1), (5, 5), (1, 9)])
def test_label_orientation_ends_with_clicked_at_one_and_unclicked_at_zero(clicked: int, unclicked: int) -> None:
    high, low = minimised(clicked, unclicked, "label")
    assert high.min() > 0.95
    assert low.max() < 0.05


def test_printed_orientation_cancels_on_a_page_of_two() -> None:
    clicked, unclicked = minimised(1, 1, "printed")
    assert abs(clicked.item() - unclicked.item()) < 1e-3


def test_printed_orientation_prefers_a_balanced_page_unseparated() -> None:
    # Each label ends with items at both sides, which chance chooses; separated as it should be, the page costs
    # more than with all degrees alike.
    for degrees in minimised(5, 5, "printed"):
        assert degrees.min() < 0.05
        assert degrees.max() > 0.95
    loss = partial(
        repulsion_loss,
        clicks=torch.arange(10) < 5,
        page_lengths=torch.tensor([10]),
        temperature=TAU,
        orientation="printed",
    )
    assert loss((torch.arange(10) < 5).float()) > loss(torch.full((10,), 0.5))


def test_printed_orientation_inverts_a_page_with_few_clicks() -> None:
    clicked, unclicked = minimised(1, 9, "printed")
    assert clicked.max() < 0.1
    assert unclicked.min() > 0.9


@pytest.mark.parametrize("label", [0, 1])
def test_the_attraction_of_one_label_is_that_of_pages_without_the_other_items(label: int) -> None:
    degree, clicks, lengths = ragged_pages(5)
    kept = clicks.bool() == bool(label)
    page = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
    own = (degree[kept], clicks[kept], torch.bincount(page[kept], minlength=len(lengths)))
    weights = (0.0, 3.0) if label else (3.0, 0.0)
    found = attraction_loss(degree, clicks, lengths, scale=XI, label_weights=weights)
    torch.testing.assert_close(found * len(degree), 3 * attraction_loss(*own, scale=XI) * int(kept.sum()))


@pytest.mark.parametrize(("pairs", "expected"), [("all", (1, 1)), ("clicked", (0, 1))])
def test_readings_of_the_attraction_keep_or_leave_out_a_label(
    pairs: AttractionPairs, expected: tuple[float, float]
) -> None:
    assert attraction_label_weights(pairs, 2, 5) == expected


def test_attraction_by_label_gives_the_pairs_of_each_label_half_of_the_weight() -> None:
    unclicked, clicked = attraction_label_weights("by_label", 2.5, 7.0)
    pairs_unclicked, pairs_clicked = 7.0 * 6.0, 2.5 * 1.5
    assert unclicked * pairs_unclicked == pytest.approx(clicked * pairs_clicked)


@pytest.mark.parametrize("clicked_per_page", [0.0, 1.0, 1.0001])
def test_attraction_by_label_has_finite_weights_where_pairs_of_a_label_are_rare(clicked_per_page: float) -> None:
    unclicked, clicked = attraction_label_weights("by_label", clicked_per_page, 7.0)
    assert 0.9 < unclicked < 1.1
    assert 0 <= clicked <= 7.0 * 6.0


def test_attraction_weight_is_that_of_equations_9_and_10() -> None:
    n1, n0 = 1.3, 7.9
    positive = (n0 * (n0 - 1) + n1 * (n1 - 1)) / ((n0 + n1) * (n0 + n1 - 1))
    assert attraction_weight(n1, n0) == pytest.approx((1 - positive) / positive)


@pytest.mark.parametrize(
    ("clicked", "unclicked", "message"),
    [
        (-1, 3, "clicked_per_page is -1"),
        (1, math.nan, "unclicked_per_page is nan"),
        (0.3, 0.6, "0.9 items on average"),
        (1, 1, "no pair with the same label"),
    ],
)
def test_attraction_weight_refuses_counts_that_have_none(clicked: float, unclicked: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attraction_weight(clicked, unclicked)


def test_a_scale_passes_exactly_when_the_sigmoid_keeps_the_angles_within_pi() -> None:
    for scale in (0.5, 0.7, 0.7036, 0.7037, 0.8, 5.0):
        if math.exp(1 / scale) - math.exp(0) < math.pi:
            check_scale("sigmoid", scale)
        else:
            with pytest.raises(ValueError, match=r"0\.7037 or more"):
                check_scale("sigmoid", scale)


@pytest.mark.parametrize(
    ("bound", "message"), [("none", r"sigmoid bound with a scale xi of 0\.7037"), ("tan", "'tan'")]
)
def test_a_degree_that_the_sigmoid_does_not_bound_is_refused(bound: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_scale(bound, 0.8)


def test_what_cannot_be_right_is_refused_in_words() -> None:
    degree, clicks, lengths = torch.zeros(3), torch.zeros(3), torch.tensor([3])
    with pytest.raises(ValueError, match="orientation is 'labels'; use one of label, printed"):
        repulsion_loss(degree, clicks, lengths, temperature=TAU, orientation="labels")
    with pytest.raises(ValueError, match="temperature is 0"):
        repulsion_loss(degree, clicks, lengths, temperature=0)
    with pytest.raises(ValueError, match="scale is -1"):
        attraction_loss(degree, clicks, lengths, scale=-1)
    with pytest.raises(ValueError, match=r"clicks \[2\]"):
        PageDegrees.of(degree, clicks[:2], torch.zeros(3), 1)
    with pytest.raises(ValueError, match=r"page \[1\]"):
        PageDegrees.of(degree, clicks, torch.zeros(1), 1)
