"""TAN and CCN: their parts, and what is learned from. `test_systems.py` has what holds for every system."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from lightning_ccn.data.batch import PageBatch
from lightning_ccn.data.reader import PageBatches
from lightning_ccn.models import CCN, TAN
from lightning_ccn.models.system import Prediction


@pytest.fixture(scope="module")
def model(reader: PageBatches) -> CCN:
    torch.manual_seed(0)
    return CCN(reader.dataset, dim=8)


def test_parts_of_tan_appear_and_vanish_with_their_switches(reader: PageBatches) -> None:
    def parts(**switches: Any) -> set[str]:
        return {name.split(".")[0] for name, _ in TAN(reader.dataset, dim=8, **switches).named_parameters()}

    assert parts() - parts(collaborative=False) == {"collaborative"}
    assert parts() - parts(trigger_interaction=False) == {"trigger_short", "trigger_long"}
    assert TAN(reader.dataset, dim=8, collaborative=False)(reader[0, 0]).degree is None


def test_losses_have_the_weights_of_eq_12(reader: PageBatches) -> None:
    batch, dataset = reader[0, 0], reader.dataset
    model = CCN(dataset, dim=8, contrast_weight=0.3)
    losses = model.auxiliary_losses(model(batch), batch)
    n1, n0 = dataset.clicked_per_page, dataset.unclicked_per_page
    ratio = 2 * n0 * n1 / (n0 * (n0 - 1) + n1 * (n1 - 1))
    assert {name: weight for name, (_, weight) in losses.items()} == pytest.approx(
        {"repulsion": 0.3, "attraction": 0.3 * ratio}
    )


@pytest.mark.parametrize(
    ("switches", "names"),
    [({"repulsion": False}, {"attraction"}), ({"attraction": False}, {"repulsion"})],
)
def test_each_loss_can_be_left_out(reader: PageBatches, switches: dict[str, Any], names: set[str]) -> None:
    model, batch = CCN(reader.dataset, dim=8, **switches), reader[0, 0]
    assert set(model.auxiliary_losses(model(batch), batch)) == names


def test_ccn_without_any_loss_is_refused(reader: PageBatches) -> None:
    with pytest.raises(ValueError, match="both off; leave one on, or train TAN"):
        CCN(reader.dataset, dim=8, repulsion=False, attraction=False)


def test_only_clicked_items_attract_each_other_where_that_is_asked_for(reader: PageBatches) -> None:
    batch = reader[0, 0]
    assert batch.clicks is not None
    degree = torch.rand(len(batch.clicks), requires_grad=True)
    model = CCN(reader.dataset, dim=8, attraction_pairs="clicked")
    value, _ = model.auxiliary_losses(Prediction(degree, degree), batch)["attraction"]
    value.backward()
    assert degree.grad is not None
    assert (degree.grad[batch.clicks == 0] == 0).all()
    assert (degree.grad[batch.clicks == 1] != 0).any()


def test_a_scale_that_lets_the_angle_leave_its_range_is_refused(reader: PageBatches) -> None:
    with pytest.raises(ValueError, match=r"scale xi"):
        CCN(reader.dataset, scale=0.5)
    with pytest.raises(ValueError, match="without a bound"):
        CCN(reader.dataset, bound="none", head_reads="degree")


def test_contrast_drives_the_degrees_of_clicked_and_unclicked_items_apart(reader: PageBatches) -> None:
    torch.manual_seed(0)
    model, batch = CCN(reader.dataset, dim=8), reader[0, 0]
    optimizer = torch.optim.Adagrad(model.parameters(), lr=0.05, initial_accumulator_value=1e-10)

    def gap() -> float:
        degree, clicked = model(batch).degree, batch.clicks == 1
        assert degree is not None
        return (degree[clicked].mean() - degree[~clicked].mean()).item()

    before = gap()
    for _ in range(60):
        optimizer.zero_grad()
        value, _ = model.auxiliary_losses(model(batch), batch)["repulsion"]
        value.backward()
        optimizer.step()
    assert gap() > before + 0.5


def test_scoring_never_calls_the_contrastive_losses(
    model: CCN, reader: PageBatches, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("a loss was asked for")

    monkeypatch.setattr("lightning_ccn.models.ccn.repulsion_loss", fail)
    monkeypatch.setattr("lightning_ccn.models.ccn.attraction_loss", fail)
    batch: PageBatch = reader[0, 0]
    model(batch)
    with pytest.raises(AssertionError):
        model.auxiliary_losses(model(batch), batch)


def test_the_head_can_read_the_logit_of_a_degree_that_the_losses_see_bounded(reader: PageBatches) -> None:
    torch.manual_seed(0)
    model = CCN(reader.dataset, dim=8, head_reads="logit").eval()
    read: list[torch.Tensor] = []
    model.head.register_forward_pre_hook(lambda head, inputs: read.append(inputs[1][:, -1]))
    degree = model(reader[0, 0]).degree
    assert degree is not None
    torch.testing.assert_close(read[0].sigmoid(), degree)
    assert read[0].min() < 0


def test_there_is_no_logit_to_read_without_a_bounded_degree(reader: PageBatches) -> None:
    with pytest.raises(ValueError, match="head_reads: logit is for a degree with a bound"):
        TAN(reader.dataset, dim=8, head_reads="logit", bound="none")


def test_a_direct_degree_is_added_to_the_heads_output_and_learns_from_the_first_step(reader: PageBatches) -> None:
    batch = reader[0, 0]
    assert batch.clicks is not None
    gradients, logits = [], []
    for direct in (False, True):
        torch.manual_seed(0)
        model = TAN(reader.dataset, dim=8, bound="none", direct_degree=direct)
        prediction = model(batch)
        binary_cross_entropy_with_logits(prediction.logit, batch.clicks).backward()
        of_module = [parameter.grad for parameter in model.collaborative.parameters() if parameter.grad is not None]
        gradients.append(sum(float(gradient.square().sum()) for gradient in of_module) ** 0.5)
        logits.append(prediction.logit.detach())
        assert prediction.degree is not None
    torch.testing.assert_close(logits[1] - logits[0], prediction.degree.detach())
    assert gradients[1] > 10 * gradients[0]


@pytest.mark.parametrize("options", [{"direct_degree": True}, {"head_reads": "logit"}])
def test_there_is_no_degree_without_a_collaborative_module(options: dict[str, Any], reader: PageBatches) -> None:
    with pytest.raises(ValueError, match="are for a system with a collaborative module; leave them out"):
        TAN(reader.dataset, dim=8, collaborative=False, **options)
