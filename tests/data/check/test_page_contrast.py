"""What training pages offer to losses over a page's items, on pages with a known clickiness."""

from __future__ import annotations

import numpy as np
import pytest

from lightning_ccn.data.check.page_contrast import PageContrast
from lightning_ccn.data.ragged import Ragged


def pages(clickiness: float, count: int = 20_000, logit: float = -1.5) -> Ragged:
    """Pages of 5 to 15 items whose logits differ between pages by a normal shift."""
    draw = np.random.default_rng(0)
    lengths = draw.integers(5, 16, count)
    shift = np.repeat(clickiness * draw.normal(size=count), lengths)
    return Ragged.from_lengths((draw.random(lengths.sum()) < 1 / (1 + np.exp(-logit - shift))).astype(np.int8), lengths)


@pytest.mark.parametrize("clickiness", [0.0, 0.5, 1.25, 2.0])
def test_the_clickiness_of_the_pages_is_found_again(clickiness: float) -> None:
    contrast = PageContrast()
    contrast.add({"clicks": pages(clickiness)})
    assert contrast.clickiness() == pytest.approx(clickiness, abs=0.1 if clickiness else 0.2)


def test_pages_are_counted_by_what_they_can_teach() -> None:
    contrast = PageContrast()
    clicks = [1, 0, 0, 1, 1, 0, 0, 0, 1]  # one click of three; two of three; none of two; a single item
    contrast.add({"clicks": Ragged.from_lengths(np.array(clicks, dtype=np.int8), np.array([3, 3, 2, 1]))})
    values = {line[2:38].strip(): line[38:].strip() for line in contrast.figures()}
    assert values["items per page, mean"] == "2.2"
    assert values["clicks per page, mean"] == "1.00"
    assert values["pages with both labels"] == "50.0%"
    assert values["of these, pages with several clicks"] == "50.0%"


def test_a_log_of_one_click_a_page_or_of_pages_with_one_label_says_that_its_clickiness_is_not_known() -> None:
    one_click, one_label = PageContrast(), PageContrast()
    one_click.add({"clicks": Ragged.from_lengths(np.tile([1, 0, 0], 50), np.full(50, 3))})
    assert one_click.clickiness() is None
    one_label.add({"clicks": Ragged.from_lengths(np.repeat([1, 0, 0, 0], 50), np.full(40, 5))})
    assert list(one_label.figures())[-1].split()[-3:] == ["6", "or", "more"]


@pytest.mark.parametrize("clicks", [[0, 0], [1, 1]])
def test_labels_that_are_all_equal_have_no_clickiness(clicks: list[int]) -> None:
    contrast = PageContrast()
    contrast.add({"clicks": Ragged.from_lengths(np.array(clicks, dtype=np.int8), np.array([2]))})
    assert contrast.clickiness() is None
