"""How figures are shown to people: rates in percent, the rest with four digits."""

import re

_RATE = re.compile(r"(^|_)(rate|accuracy|tpr|fpr|fraction|recall|precision)$")


def is_rate(name: str) -> bool:
    """Whether the metric `name` is a share of something, in [0, 1], by the naming rules of this project."""
    return _RATE.search(name) is not None


def title(name: str) -> str:
    """The metric `name` as words: `clean_accuracy` is "clean accuracy", `detection_tpr` "detection TPR"."""
    return " ".join(word.upper() if word in ("tpr", "fpr") else word for word in name.split("_"))


def show(name: str, value: float, spread: float | None = None) -> str:
    """`value` of the metric `name`, with ± `spread` if there is one: `"93.1 ± 0.4 %"`, `"0.2134 ± 0.01"`."""
    if is_rate(name):
        return f"{100 * value:.1f}" + ("" if spread is None else f" ± {100 * spread:.1f}") + " %"
    return f"{value:.4g}" + ("" if spread is None else f" ± {spread:.2g}")
