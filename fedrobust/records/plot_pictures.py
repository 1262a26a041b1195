"""Two pictures of the data: which client holds which classes, and what a triggered example looks like."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from fedrobust.figures.style import BLUE, new_figure, save_figure
from fedrobust.records.run_folder import RunFolder


def plot_partition(folder: RunFolder, histogram: Tensor) -> Path:
    """Draw the partition: a heat map of classes over clients, and above it the size of each client.

    Args:
        folder: the run's folder.
        histogram: integer `(clients, classes)`, examples of each class at each client.
    """
    num_clients, num_classes = histogram.shape
    width, height = min(max(7.0, 0.06 * num_clients), 12.0), min(max(4.0, 2.2 + 0.22 * num_classes), 8.0)
    figure = new_figure(width, height)
    grid = figure.add_gridspec(2, 1, height_ratios=[1.0, max(2.0, height - 2.5)])
    sizes = figure.add_subplot(grid[0])
    classes = figure.add_subplot(grid[1], sharex=sizes)

    sizes.bar(range(num_clients), histogram.sum(dim=1).tolist(), width=0.9, color=BLUE)
    sizes.set_title(f"Training examples of {num_clients} clients", loc="left", fontsize=12, fontweight="bold")
    sizes.set_ylabel("examples")
    sizes.tick_params(labelbottom=False)
    sizes.spines[["top", "right"]].set_visible(False)

    image = classes.imshow(histogram.T.tolist(), aspect="auto", cmap="Blues", interpolation="nearest", vmin=0)
    classes.set_xlabel("client")
    classes.set_ylabel("class")
    classes.xaxis.set_major_locator(MaxNLocator(nbins=20, integer=True))
    classes.yaxis.set_major_locator(MaxNLocator(nbins=20, integer=True))
    classes.set_xlim(-0.6, num_clients - 0.4)
    figure.colorbar(image, ax=classes, label="examples", pad=0.01, aspect=25)
    return save_figure(figure, folder.plots / "partition.png")


def plot_examples(
    folder: RunFolder,
    clean: Tensor,
    triggered: Tensor | Mapping[str, Tensor],
    labels: Tensor | Sequence[int],
    *,
    class_names: Sequence[str] | None = None,
    target_label: int | None = None,
    max_examples: int = 8,
) -> Path:
    """Draw a sheet of examples: the clean ones in the first row, each trigger's version of them below.

    Args:
        folder: the run's folder.
        clean: `(m, C, H, W)`, C = 1 or 3. Pixels in [0, 1] are shown as they are; others (standardised images) are
            mapped to it, all rows alike, from the range of the clean images.
        triggered: the same examples with the trigger, `(m, C, H, W)`, or by name where there are several triggers.
        labels: `(m,)`, the true classes.
        class_names: the names of the classes; their numbers if `None`.
        target_label: the class that the attack wants, named in the title.
        max_examples: how many of the m examples are shown.

    Raises:
        ValueError: images with other than 1 or 3 channels, or a triggered row of another shape than the clean one.
    """
    if clean.ndim != 4 or clean.shape[1] not in (1, 3) or len(clean) == 0:
        raise ValueError(f"examples must be images (m, 1 or 3, H, W) with m >= 1, got shape {tuple(clean.shape)}")
    rows = {"clean": clean, **(triggered if isinstance(triggered, Mapping) else {"triggered": triggered})}
    for name, images in rows.items():
        if images.shape != clean.shape:
            raise ValueError(f"{name}: expected shape {tuple(clean.shape)}, got {tuple(images.shape)}")

    def name_of(label: int) -> str:
        return str(label) if class_names is None else class_names[label]

    columns = min(max_examples, len(clean))
    low, high = (0.0, 1.0) if clean.min() >= 0 and clean.max() <= 1 else (float(clean.min()), float(clean.max()))
    figure = new_figure(1.15 * columns + 1.0, 1.15 * len(rows) + 0.8)
    heading = "Clean and triggered examples"
    figure.suptitle(
        heading if target_label is None else f"{heading}, target: {name_of(target_label)}",
        fontsize=11,
        fontweight="bold",
    )
    # One picture of all examples: a hundred little axes would take seconds to lay out.
    height, width = clean.shape[2:]
    gap = max(1, width // 12)
    channels_last = torch.stack([images[:columns].detach().float().cpu() for images in rows.values()])
    shown = ((channels_last - low) / max(high - low, 1e-12)).clamp(0, 1).permute(0, 1, 3, 4, 2)
    # Grey between the examples: on white or black ground a trigger at the edge would not show.
    sheet = torch.full((len(rows) * (height + gap) + gap, columns * (width + gap) + gap, shown.shape[-1]), 0.6)
    for line, pictures in enumerate(shown):
        for column, picture in enumerate(pictures):
            top, left = line * (height + gap) + gap, column * (width + gap) + gap
            sheet[top : top + height, left : left + width] = picture
    axes = figure.subplots()
    axes.imshow(sheet.squeeze(-1).numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labeltop=True, labelbottom=False)
    middle = gap + (width - 1) / 2
    names = [name_of(int(label)) for label in list(labels)[:columns]]
    axes.set_xticks([column * (width + gap) + middle for column in range(columns)], names)
    axes.set_yticks([line * (height + gap) + gap + (height - 1) / 2 for line in range(len(rows))], list(rows))
    return save_figure(figure, folder.plots / "examples.png")
