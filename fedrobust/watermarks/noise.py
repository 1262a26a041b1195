"""Noise: pictures of nothing, with labels that nothing suggests.

Zhang, Gu, Jang, Wu, Stoecklin, Huang, Molloy, "Protecting Intellectual Property of Deep Neural Networks with
Watermarking", ASIACCS 2018, https://doi.org/10.1145/3196494.3196550 (WM_noise)
Departs: noise instead of a picture, not added to one of the owner's, since a federated server holds none (the
unstructured noise of Tekgul et al., "WAFFLE", SRDS 2021, https://arxiv.org/abs/2008.07298). Random labels by default:
most models give all noise one and the same class, so that one label for all would be right or wrong as a whole.
"""

import torch

from fedrobust.config.component import Count, Index, component
from fedrobust.watermarks.trigger_set import Material, Triggers, label_pictures, picture_size


@component
class Noise:
    """Every value of every picture uniform in [0, 1].

    Attributes:
        num_examples: pictures.
        target_label: the label of all of them, as in the paper; `None` draws each label at random.
    """

    num_examples: Count = 20
    target_label: Index | None = None

    def draw(self, material: Material) -> Triggers:
        """Draw the pictures and their labels.

        Raises:
            FieldError: a data set without pictures, or without the class.
        """
        shape = (self.num_examples, *picture_size(material.dataset))
        return label_pictures(torch.rand(shape, generator=material.generator), self.target_label, material)
