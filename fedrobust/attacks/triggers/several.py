"""Several triggers at once."""

from fedrobust.attacks.triggers.base import Trigger, TriggerShape, is_synthetic
from fedrobust.config.component import FieldError, component


@component
class Several:
    """The parts of all `shapes`, in their order: BadNets stamps all of them, a DBA attacker its own.

    Attributes:
        shapes: at least one; where they overlap, the later is stamped on the earlier.
    """

    shapes: list[TriggerShape]

    def __post_init__(self) -> None:
        """Check that there are shapes and nothing else."""
        if not self.shapes or not all(isinstance(shape, TriggerShape) for shape in self.shapes):
            raise FieldError(
                "shapes", f"must list components of the kind TriggerShape, at least one, got {self.shapes}"
            )

    @property
    def is_synthetic(self) -> bool:
        """Whether all of them are."""
        return all(map(is_synthetic, self.shapes))

    def triggers(self, input_shape: tuple[int, ...]) -> tuple[Trigger, ...]:
        """All parts."""
        return tuple(part for shape in self.shapes for part in shape.triggers(input_shape))
