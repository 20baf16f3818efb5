"""How a run's system is shown in comparisons; set beside the system in its YAML file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Family = Literal["plain", "intent", "trigger", "contrast"]


@dataclass(frozen=True)
class Display:
    """Title, colour and place of a system in tables and figures. Training does not read it.

    Attributes:
        title: Name in tables and figures; the name of the YAML file if empty.
        family: How the system uses the trigger; sets its colour. `plain`: nothing. `intent`: it weighs the trigger by
            an estimated intent. `trigger`: it uses the trigger. `contrast`: it also learns from the contrast of a
            page's items.
        order: Place among the systems of a comparison, smallest first.
        paper_auc: The CCN paper's AUC of this system (Table 2), on data that is not public.
    """

    title: str = ""
    family: Family = "plain"
    order: int = 100
    paper_auc: float | None = None
