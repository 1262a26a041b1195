"""`fedrobust-audit`: audit a model or a folder of pictures of one's own, or the model of a run."""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fedrobust.records.versions import version_line

if TYPE_CHECKING:
    from fedrobust.audit_command.subject import Reading

MODEL_AUDITS = {
    "neural_cleanse": "is there a label that an unusually small patch makes the model say? (a backdoor's target)",
    "weight_hash": "write the hash of every tensor, or compare with the one of --expect",
    "watermark": "does the model carry the watermark of --owner, a run's folder? (default: MODEL's own)",
}
DATA_AUDITS = {
    "spectral_signatures": "which pictures of --data lie far out on the top direction of their class's features?",
    "activation_clustering": "do a class's features fall into two clusters, one of them poison? (needs --clean)",
    "frequency": "which pictures of --data have a trigger's spectrum? (needs --clean; no model)",
    "strip": "which pictures of --data keep their class whatever is blended in? (needs --clean)",
}
_OPTION_OF = {
    "clean": ("activation_clustering", "frequency", "strip"),
    "quick": ("neural_cleanse",),
    "unlearn": ("neural_cleanse",),
    "set": ("neural_cleanse", *DATA_AUDITS),
    "expect": ("weight_hash",),
    "owner": ("watermark",),
    "unmarked": ("watermark",),
}
"""Options that some audits have no use for."""
DEFAULT_EXAMPLES, QUICK_EXAMPLES = 500, 100

_EPILOG = """\
files:
  A model is a file of weights: safetensors, or what torch.save(model.state_dict(), FILE) wrote. A pickle with anything
  else in it is refused, as loading it could run any code. A run's folder is one that the command fedrobust wrote; its
  data set is loaded as the run did, and --architecture, --mean, --std and --data are not needed.
  Labels are the places of the subfolders of --data in the alphabet, as torchvision's ImageFolder has them.

results:
  The folder --out holds report.json, report.png and, for neural_cleanse, the recovered triggers.
  The exit code is 0 if nothing was found (or there is no verdict), 1 if something was (a backdoor, poison, a changed
  tensor, a watermark), 2 if nothing could be audited.

examples:
  fedrobust-audit model.pt --architecture resnet18 --data pictures --audit neural_cleanse
  fedrobust-audit model.safetensors --architecture small_cnn --input-size 32x32 --mean 0.5 --std 0.25 \\
      --data pictures --audit neural_cleanse --unlearn
  fedrobust-audit outputs/2026-01-31/12-00-00 --audit neural_cleanse
  fedrobust-audit model.pt --architecture resnet18 --data suspicious --audit spectral_signatures
  fedrobust-audit --data suspicious --clean trusted --input-size 64x64 --audit frequency
  fedrobust-audit model.pt --audit weight_hash --expect audit/report.json
  fedrobust-audit stolen.safetensors --audit watermark --owner outputs/2026-01-31/12-00-00
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; see its help for the exit code."""
    parser = _parser()
    options = parser.parse_args(argv)
    if options.model is None and options.audit != "frequency":
        parser.error(f"MODEL is needed for {options.audit}")
    for name, audits in _OPTION_OF.items():
        if getattr(options, name) and options.audit not in audits:
            parser.error(f"--{name} is for {' or '.join(audits)}, not for {options.audit}")
    if options.out.exists() and not options.out.is_dir():
        parser.error(f"--out must be a folder, got {options.out}")
    # As the command `fedrobust` does, before torch is imported: no threads that spin.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        # torch takes seconds to import: not for --help
        from fedrobust.audit_command.command_runs import audit_data, audit_hash, audit_model, audit_watermark

        started = time.perf_counter()
        if options.audit == "weight_hash":
            found = audit_hash(options)
        elif options.audit == "watermark":
            found = audit_watermark(options, _reading(options))
        elif options.audit in MODEL_AUDITS:
            found = audit_model(options, _reading(options))
        else:
            found = audit_data(options, _reading(options))
        print(f"written to {options.out} in {time.perf_counter() - started:.0f} s")
    except (ValueError, OSError) as error:
        print(f"fedrobust-audit: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return int(found)


def _reading(options: argparse.Namespace) -> "Reading":
    from fedrobust.audit_command.subject import Reading

    limit = options.max_examples
    if limit is None and options.audit in MODEL_AUDITS:
        limit = QUICK_EXAMPLES if options.quick else DEFAULT_EXAMPLES
    return Reading(
        device=options.device,
        seed=options.seed,
        max_examples=limit,
        architecture=options.architecture,
        input_size=options.input_size,
        mean=options.mean,
        std=options.std,
        data_root=options.data_root,
        trust=tuple(options.trust),
        classes=None if options.classes is None else options.classes.split(","),
    )


def _parser() -> argparse.ArgumentParser:
    audits = "\n".join(f"  {name:22s} {text}" for name, text in {**MODEL_AUDITS, **DATA_AUDITS}.items())
    parser = argparse.ArgumentParser(
        prog="fedrobust-audit",
        description="Look for backdoors in a model, or for poison in a folder of pictures.\n\naudits:\n" + audits,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=version_line())
    parser.add_argument(
        "model",
        metavar="MODEL",
        type=Path,
        nargs="?",
        help="a file of weights, or a run's folder; frequency needs none",
    )
    parser.add_argument(
        "--audit", required=True, choices=[*MODEL_AUDITS, *DATA_AUDITS], metavar="AUDIT", help="one of those above"
    )
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="pictures, a subfolder for each class")
    parser.add_argument(
        "--classes", metavar="A,B,C",
        help="names of the subfolders in the order of the model's labels (default: integers are the labels, other "
        "names count in their alphabet)",
    )  # fmt: skip
    parser.add_argument("--clean", type=Path, metavar="FOLDER", help="pictures that are known to be clean, likewise")
    parser.add_argument("--out", type=Path, default=Path("audit"), metavar="DIR", help="results (default: audit)")
    model = parser.add_argument_group("the model, for a file of weights")
    model.add_argument(
        "--architecture",
        metavar="NAME",
        help="dba_cnn, logistic, mlp, resnet18, small_cnn, or one of torchvision.models",
    )
    model.add_argument(
        "--input-size", type=_size, metavar="HxW", help="of a picture, as 32x32 (default for torchvision: 224x224)"
    )
    defaults = "default: ImageNet's for torchvision, else"
    model.add_argument("--mean", type=float, nargs="+", help=f"one number, or one a channel, in [0, 1] ({defaults} 0)")
    model.add_argument("--std", type=float, nargs="+", help=f"likewise ({defaults} 1)")
    how = parser.add_argument_group("how")
    how.add_argument("--seed", type=int, default=0, help="fixes every random choice (default: 0)")
    how.add_argument(
        "--max-examples", type=_count, metavar="N",
        help=f"a random choice of the pictures (default: {DEFAULT_EXAMPLES} for neural_cleanse, else all)",
    )  # fmt: skip
    how.add_argument(
        "--quick", action="store_true",
        help="neural_cleanse: few steps and pictures, to see that everything fits together",
    )  # fmt: skip
    how.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: auto)")
    how.add_argument("--data-root", type=Path, metavar="DIR", help="where the data set of a run lies")
    how.add_argument(
        "--unlearn", action="store_true", help="neural_cleanse: also write a model without the triggers that were found"
    )
    how.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE",
        help="a setting of the audit, as threshold=3 or inversion.num_checks=200; may be given again",
    )  # fmt: skip
    how.add_argument(
        "--expect", type=Path, metavar="FILE", help="weight_hash: the report.json of the model as deployed"
    )
    how.add_argument(
        "--owner", type=Path, metavar="RUNFOLDER", help="watermark: a run with a watermark, such as one's own"
    )
    how.add_argument(
        "--unmarked", type=Path, nargs="+", default=[], metavar="MODEL",
        help="watermark: unmarked models of the same task, needed unless its labels are drawn at random",
    )  # fmt: skip
    how.add_argument(
        "--trust", nargs="+", default=[], metavar="MODULE",
        help="modules besides fedrobust whose components the config of a run may name; their code runs",
    )  # fmt: skip
    return parser


def _size(text: str) -> tuple[int, int]:
    parts = text.lower().split("x")
    if len(parts) not in (1, 2) or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"must be HxW, as 32x32, got {text!r}")
    return int(parts[0]), int(parts[-1])


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
