"""The target-only graph of a model: `forward` of one page, without losses, clicks or context."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from lightning_ccn.errors import OptionError
from lightning_ccn.export.one_page import OnePage
from lightning_ccn.export.rebuild import Model
from lightning_ccn.models.system import Prediction
from lightning_ccn.nn.tables import PageEmbedding
from lightning_ccn.serving.scorer import DEGREE, INTENT, ORDER, PROBABILITY

Program = torch.export.ExportedProgram


class ServingGraph(nn.Module):
    """Probabilities from the inputs of a graph.

    Args:
        model: A model that is given its embeddings, see `one_page`.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """The outputs by name: probability [items], and what else the model estimates.

        Those are degree [items], intent [1] and order_probability [items].
        """
        prediction: Prediction = self.model(OnePage(**inputs))
        outputs = {PROBABILITY: prediction.logit.float().sigmoid()}
        if prediction.degree is not None:
            outputs[DEGREE] = prediction.degree
        if prediction.intent is not None:
            outputs[INTENT] = prediction.intent.float().sigmoid()
        if prediction.conversion is not None:
            outputs[ORDER] = outputs[PROBABILITY] * prediction.conversion.float().sigmoid()
        return outputs


def trace(graph: ServingGraph, example: dict[str, Tensor]) -> Program:
    """The graph for any number of candidates, behaviours and groups.

    Args:
        graph: The graph.
        example: Inputs with two or more of each, since torch.export takes a size of one for a constant.

    Raises:
        OptionError: `forward` of the system reads something that a request does not have, or cannot be traced.
    """
    distinct, items, short, groups, long = map(torch.export.Dim, ("distinct", "items", "short", "groups", "long"))
    sizes = {
        "item": {0: distinct},
        "target": {0: items},
        "short": {0: short},
        "long": {0: groups, 1: long},
        "long_lengths": {0: groups},
        "target_group": {0: items},
        "numbers": {0: items},
        "vectors": {0: distinct},
        "wide": {0: items},
        "short_gap": {0: short},
        "long_gap": {0: groups, 1: long},
    }
    shapes = {name: sizes.get(name) for name in example}
    try:
        with torch.no_grad(), quiet():
            return torch.export.export(graph, (example,), dynamic_shapes=(shapes,), strict=False)
    except Exception as error:  # of the exporter, or of a forward that reads something else
        raise OptionError(
            f"{type(graph.model.system).__name__}: cannot be served: {' '.join(str(error).split())[:300]}; forward "
            "must score a target from the target, the user, the trigger and the sequences, as export.one_page.OnePage "
            "has them"
        ) from error


def write_onnx(program: Program, example: dict[str, Tensor], path: Path) -> None:
    """Writes the graph as ONNX, without the inputs that its system does not read."""
    with quiet():
        outputs = list(program.module()(example))
        exported = torch.onnx.export(
            program, dynamo=True, verbose=False, input_names=list(example), output_names=outputs, optimize=True
        )
        assert exported is not None
        model = exported.model_proto
    read = {name for node in model.graph.node for name in node.input}
    for entry in [entry for entry in model.graph.input if entry.name not in read]:
        model.graph.input.remove(entry)
    for entry in (*model.graph.node, model.graph, model):  # paths of the exporting machine's files among them
        del entry.metadata_props[:]
        entry.doc_string = ""
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())


def example_inputs(embedding: PageEmbedding, crossed: bool, gaps: bool) -> dict[str, Tensor]:
    """Inputs of the shapes in `OnePage`, with several of everything.

    Args:
        embedding: The embedding layer whose widths they have.
        crossed: Whether the system has crossed ids.
        gaps: Whether it reads how long ago behaviours were.
    """
    distinct, items, short, groups, long = 30, 10, 20, 4, 7
    inputs = {
        "user": torch.zeros(1, embedding.user_dim),
        "item": torch.zeros(distinct, embedding.items.dim),
        "target": torch.arange(items),
        "trigger": torch.tensor([0]),
        "short": torch.arange(short),
        "short_lengths": torch.tensor([short]),
        "long": torch.arange(groups * long).view(groups, long),
        "long_lengths": torch.full((groups,), long),
        "target_group": torch.arange(items) % groups,
        "trigger_group": torch.tensor([0]),
        "numbers": torch.zeros(items, embedding.number_dim),
    }
    if embedding.vectors is not None:
        inputs["vectors"] = torch.zeros(distinct, sum(embedding.vectors.widths))
    if crossed:
        inputs["wide"] = torch.zeros(items)
    if gaps:
        inputs["short_gap"], inputs["long_gap"] = torch.arange(short), torch.arange(groups * long).view(groups, long)
    return inputs


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without torch's remarks on its own work: a failure raises."""
    before = logging.root.manager.disable
    try:
        logging.disable(logging.WARNING)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
