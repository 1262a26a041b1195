"""Watermarks: the backdoor for good. An owner's secret trigger set, how a model learns it, and what it proves."""

from fedrobust.watermarks.abstract import Abstract
from fedrobust.watermarks.content import Content
from fedrobust.watermarks.embedding import Embedded, Mark, NoWatermark, Watermark
from fedrobust.watermarks.noise import Noise
from fedrobust.watermarks.ownership import Ownership, verify
from fedrobust.watermarks.rare_words import RareWords
from fedrobust.watermarks.trigger_set import Material, Triggers, TriggerSet
from fedrobust.watermarks.unrelated import Unrelated

__all__ = [
    "Abstract",
    "Content",
    "Embedded",
    "Mark",
    "Material",
    "NoWatermark",
    "Noise",
    "Ownership",
    "RareWords",
    "TriggerSet",
    "Triggers",
    "Unrelated",
    "Watermark",
    "verify",
]
