"""The plan's words for a difference on unseen and on seen languages."""

from contrasts import Contrast
from plan import Plan

BETTER, LEVEL, WORSE, UNDECIDED = "better", "level", "worse", "undecided"
DECIDED = (BETTER, WORSE)
"""What ends a stage at its first look."""


def verdict(plan: Plan, unseen: Contrast, seen: Contrast, p: float, alpha: float) -> str:
    """The plan's word for a difference on unseen and on seen languages, by the interval of these languages.

    Args:
        p: of no difference on unseen languages, corrected where several data sets are tested.
        alpha: what it has to be below.
    """
    away, loss = plan.margins["level"], -plan.margins["seen"]
    if seen.these.high < loss:
        return WORSE
    if unseen.these.low > 0 and p < alpha and seen.these.low > loss:
        return BETTER
    if unseen.these.high < 0 and p < alpha:
        return WORSE
    if unseen.these.low > -away and unseen.these.high < away and seen.these.low > loss:
        return LEVEL
    return UNDECIDED
