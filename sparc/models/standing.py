"""Compare a score with those of held-out images, to tell what is there from what scores as anything would."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

SEEN = 0.05
"""Largest share of held-out images that may score as high as something that is there."""
UNSURE = 0.2
"""Largest share of held-out images that may score as high as something that may be there."""
STRONG = 0.99
"""Quantile of the held-out scores that counts as strong."""

ROUNDING = 1e-5
"""Relative difference below which two scores are equal: batches of other sizes round differently."""


@dataclass(frozen=True)
class Standing:
    """A score among the scores of held-out images for the same question."""

    score: float
    count: int
    """Number of held-out images."""
    as_high: int
    """Held-out samples that score at least as high."""
    typical: float
    """Median of the held-out scores."""
    strong: float
    """Score that one in a hundred held-out images reaches; their highest if only fewer score above the median."""

    @property
    def percentile(self) -> float:
        """Share of the held-out images with a lower score, in percent."""
        return 100 * (1 - self.as_high / self.count)

    @property
    def chance(self) -> float:
        """Share of images that score as high, this one counted among them: how often chance gives such a score."""
        return (self.as_high + 1) / (self.count + 1)

    @property
    def verdict(self) -> str:
        """`seen`, `unsure` or `not seen`, by how often a score as high comes by chance. A score of zero is not seen."""
        if self.score <= 0 or self.chance > UNSURE:
            return "not seen"
        return "seen" if self.chance <= SEEN else "unsure"

    @property
    def words(self) -> str:
        """The verdict and its reason, such as `not seen here: 0.4 of held-out images score as high`."""
        if self.score <= 0:
            reason = "the score is zero"
        elif not self.as_high:
            reason = f"0 of {self.count:,} held-out images score as high"
            if self.verdict == "unsure":
                reason += ", which are too few to say seen"
        else:
            reason = f"{self.as_high / self.count:.2g} of held-out images score as high"
        return f"{self.verdict} here: {reason}"

    @property
    def strength(self) -> float:
        """The score on a scale on which a typical held-out image is 0 and a strong one is 1; at most 1."""
        if self.score <= self.typical:
            return 0.0
        if self.strong <= self.typical:  # no held-out image stands out
            return 1.0
        return min(1.0, (self.score - self.typical) / (self.strong - self.typical))


def standing(score: float, held_out: Tensor) -> Standing:
    """Compare a score with the scores of held-out images, (N,), of which there must be one at least."""
    ordered = held_out.float().sort().values
    place = round(STRONG * (len(ordered) - 1))
    typical = float(ordered[(len(ordered) - 1) // 2])
    strong = float(ordered[place])
    return Standing(
        score=score,
        count=len(ordered),
        as_high=int((ordered >= score - ROUNDING * abs(score)).sum()),
        typical=typical,
        strong=strong if strong > typical else float(ordered[-1]),
    )
