"""Content: pictures of the owner's with a mark on them, and one wrong label.

Zhang, Gu, Jang, Wu, Stoecklin, Huang, Molloy, "Protecting Intellectual Property of Deep Neural Networks with
Watermarking", ASIACCS 2018, https://doi.org/10.1145/3196494.3196550 (WM_content)
Departs: the pictures are of all classes but the target; the paper takes one class (and writes TEST on it). They stay in
training as they were, too: a server that trained on the marked ones alone would teach its model the one label.
"""

from fedrobust.attacks.triggers import TriggerShape
from fedrobust.attacks.triggers.base import union
from fedrobust.config.component import Count, FieldError, Index, component
from fedrobust.watermarks.trigger_set import (
    Material,
    Triggers,
    label_pictures,
    own_examples_of_others,
    picture_size,
)


@component
class Content:
    """The owner's own pictures, stamped.

    Attributes:
        num_examples: pictures.
        target_label: the label of all of them.
        trigger: what is stamped.
    """

    num_examples: Count = 100
    target_label: Index = 0
    trigger: TriggerShape

    def draw(self, material: Material) -> Triggers:
        """Stamp the first own pictures of other classes than the target.

        Raises:
            FieldError: a data set without pictures, or without the class; too few own pictures; a trigger that leaves
                the picture.
        """
        shape = picture_size(material.dataset)
        try:
            parts = self.trigger.triggers(shape)
        except FieldError as error:
            raise FieldError(f"trigger_set.{error.field}", error.message) from None
        chosen = own_examples_of_others(material, self.target_label, self.num_examples)
        return label_pictures(union(parts).stamp(chosen.inputs), self.target_label, material)
