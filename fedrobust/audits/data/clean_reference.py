"""What the clean examples of a class say of its two clusters: what is clean lies in both alike, and shuns poison.

R. A. Fisher, "Statistical Methods for Research Workers", 5th edition, Oliver and Boyd 1934, section 21.02: the exact
test of a table of two by two.
"""

from dataclasses import dataclass
from functools import cached_property

from scipy.stats import hypergeom


def avoidance(num_in: int, num_examples: int, num_clean_in: int, num_clean: int) -> float:
    """The chance that so few of the clean examples lie in a cluster, if they are like the others.

    Given the clusters of all together, each set of `num_clean` of them is then as likely to be the clean ones as any
    other: the number in the cluster is hypergeometric, and this is its distribution function.

    Args:
        num_in: examples to be judged that lie in the cluster.
        num_examples: of them, in both clusters.
        num_clean_in: clean examples that lie in the cluster.
        num_clean: of them, in both clusters.

    Source: Fisher's exact test, one-sided.
    Departs: nothing.
    """
    return float(hypergeom.cdf(num_clean_in, num_examples + num_clean, num_in + num_clean_in, num_clean))


def smallest_reference(num_in: int, num_examples: int, level: float) -> int:
    """How many clean examples `avoidance` takes to fall below `level`, if none lies in a cluster of `num_in` > 0."""
    enough = 1
    while avoidance(num_in, num_examples, 0, enough) >= level:
        enough *= 2
    least = enough // 2
    while enough - least > 1:
        middle = (enough + least) // 2
        enough, least = (middle, least) if avoidance(num_in, num_examples, 0, middle) < level else (enough, middle)
    return enough


@dataclass(frozen=True)
class CleanReference:
    """Where the clean examples of a class lie.

    Attributes:
        num_in: examples to be judged in the smaller cluster.
        num_examples: of them, in both.
        num_clean_in: clean examples in the smaller cluster.
        num_clean: of them, in both.
        level: chance of a false alarm that is left to the class.
    """

    num_in: int
    num_examples: int
    num_clean_in: int
    num_clean: int
    level: float

    @cached_property
    def p_values(self) -> tuple[float, float]:
        """`avoidance` of the smaller and of the larger cluster."""
        rest = (self.num_examples - self.num_in, self.num_examples, self.num_clean - self.num_clean_in, self.num_clean)
        return avoidance(self.num_in, self.num_examples, self.num_clean_in, self.num_clean), avoidance(*rest)

    @property
    def suspects_larger(self) -> bool:
        """Whether it is the larger cluster that the clean examples avoid."""
        smaller, larger = self.p_values
        return larger < min(smaller, self.level)

    @property
    def p_value(self) -> float:
        """`avoidance` of the suspected cluster: the smaller one, unless it is the larger that is avoided."""
        smaller, larger = self.p_values
        return larger if self.suspects_larger else smaller

    @property
    def is_avoided(self) -> bool:
        """Whether the clean examples avoid the suspected cluster, at the level."""
        return self.p_value < self.level

    @property
    def suspected_share(self) -> float:
        """The suspected cluster's share of the examples to be judged."""
        smaller = self.num_in / self.num_examples
        return 1 - smaller if self.suspects_larger else smaller

    @property
    def is_enough(self) -> bool:
        """Whether so many clean examples convict the smaller cluster if none of them lies in it."""
        return self.num_in == 0 or avoidance(self.num_in, self.num_examples, 0, self.num_clean) < self.level

    def verdict(self, max_share: float) -> tuple[bool | None, str]:
        """Whether the suspected cluster is poison, and why there is no telling, or an empty text.

        Args:
            max_share: of the examples to be judged, the most that a cluster may hold to be convicted.
        """
        if self.is_avoided and self.suspected_share > max_share:
            which = "larger" if self.suspects_larger else "smaller"
            return None, (
                f"cannot tell which part is poison: clean examples avoid the {which} cluster, and its "
                f"{self.suspected_share:.0%} of the class are more than max_poison_fraction={max_share:g}"
            )
        if self.is_avoided or self.is_enough:
            return self.is_avoided, ""
        needed = smallest_reference(self.num_in, self.num_examples, self.level)
        return None, (
            f"cannot tell: {self.num_clean} clean examples of the class are too few to convict a cluster of "
            f"{self.num_in}, {needed} are needed"
        )
