"""Which evaluation was the best so far: what ``keep_best`` and ``early_stopping`` decide by, kept in checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass
class Best:
    """The step of the best evaluation (0 before the first), its joint acc@π/6 and acc@π/18 in percent, the step of the
    latest evaluation, and how many in a row up to it were no better."""

    step: int = 0
    acc_pi_6: float = -1.0
    acc_pi_18: float = -1.0
    evaluated: int = 0
    no_better: int = 0

    def add(self, step: int, scores: Mapping[str, float]) -> None:
        """Count the evaluation after ``step``. Better is a higher acc@π/6 and, at the same, a higher acc@π/18."""
        self.evaluated = step
        if not scores:
            return
        found = scores["val_acc_pi_6"], scores["val_acc_pi_18"]
        if found > (self.acc_pi_6, self.acc_pi_18):
            self.step, (self.acc_pi_6, self.acc_pi_18), self.no_better = step, found, 0
        else:
            self.no_better += 1

    def stops(self, patience: int) -> bool:
        """Whether ``patience`` evaluations in a row, if it is not 0, brought nothing better."""
        return 0 < patience <= self.no_better
