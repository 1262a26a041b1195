"""Old names of modules: each still imports, and says where the module is now.

A name goes two minor versions after its move (CHANGELOG.md says which version that is).
"""

import importlib
import importlib.abc
import importlib.machinery
import sys
import warnings
from collections.abc import Sequence
from types import ModuleType

MOVED = {
    "aggregation": "federation.aggregation",
    "attacks.step": "training.step",
    "audits.command": "audit_command.command",
    "audits.command_output": "audit_command.command_output",
    "audits.command_runs": "audit_command.command_runs",
    "audits.data.report_plot": "audits.data.plot_data_report",
    "audits.model.report_plot": "audits.model.plot_triggers",
    "audits.model_files": "audit_command.model_files",
    "audits.picture_folder": "audit_command.picture_folder",
    "audits.subject": "audit_command.subject",
    "belief": "federation.belief",
    "choices": "runs.choices",
    "cli": "commands.cli",
    "clients.attacked_step": "training.attacked_step",
    "clients.cohort": "training.cohort",
    "clients.cohort_batches": "training.cohort_batches",
    "clients.cohort_size": "training.cohort_size",
    "clients.local_training": "training.local_training",
    "clients.model_traits": "training.model_traits",
    "clients.trained_layers": "training.trained_layers",
    "clients.training": "training.loop",
    "collection": "federation.collection",
    "component": "config.component",
    "compose": "config.compose",
    "composition_errors": "commands.composition_errors",
    "deployment": "runs.deployment",
    "evaluation.predictor": "training.predictor",
    "evaluation.victims": "training.victims",
    "failures": "runs.failures",
    "flower.client_app": "flower_app.client_app",
    "flower.server_app": "flower_app.server_app",
    "foreign": "config.foreign",
    "keeper": "runs.keeper",
    "pretraining": "federation.pretraining",
    "records.plot_style": "figures.style",
    "records.secrets": "config.secrets",
    "records.settings": "config.settings",
    "registry": "commands.registry",
    "resuming": "runs.resuming",
    "round": "federation.round",
    "run": "runs.run",
    "server": "federation.server",
    "standstill": "federation.standstill",
    "statistics.chosen_fit": "statistics.sever.chosen_fit",
    "statistics.clipping": "_linalg.clipping",
    "statistics.columns": "_linalg.columns",
    "statistics.cosines": "_linalg.cosines",
    "statistics.covariance_direction": "filters.covariance_direction",
    "statistics.covariance_filter": "statistics.moments.covariance_filter",
    "statistics.deepest_directions": "statistics.depth.deepest_directions",
    "statistics.deepest_region": "statistics.depth.deepest_region",
    "statistics.filtered_fit": "statistics.sever.filtered_fit",
    "statistics.filtering": "filters.filtering",
    "statistics.fit_comparison": "statistics.sever.fit_comparison",
    "statistics.gaussian_noise": "_linalg.gaussian_noise",
    "statistics.gradient_projections": "statistics.sever.gradient_projections",
    "statistics.gradients": "_linalg.gradients",
    "statistics.gram": "_linalg.gram",
    "statistics.hard_filter": "filters.hard_filter",
    "statistics.kernels": "_linalg.kernels",
    "statistics.largest_cluster": "_linalg.largest_cluster",
    "statistics.lrv": "statistics.moments.lrv",
    "statistics.mean_filter": "statistics.moments.mean_filter",
    "statistics.memory": "_linalg.memory",
    "statistics.minimum_diameter": "_linalg.minimum_diameter",
    "statistics.module_estimators": "statistics.sever.module_estimators",
    "statistics.module_gradients": "statistics.sever.module_gradients",
    "statistics.neighbours": "_linalg.neighbours",
    "statistics.no_regret": "filters.no_regret",
    "statistics.null_spectrum": "statistics.moments.null_spectrum",
    "statistics.number_range": "_linalg.number_range",
    "statistics.one_dimension": "statistics.gaussian.one_dimension",
    "statistics.order_statistics": "_linalg.order_statistics",
    "statistics.per_sample_gradients": "statistics.sever.per_sample_gradients",
    "statistics.quadratic_form": "statistics.moments.quadratic_form",
    "statistics.quantum_entropy": "filters.quantum_entropy",
    "statistics.results": "filters.results",
    "statistics.rival_means": "statistics.moments.rival_means",
    "statistics.robust_gaussian": "statistics.gaussian.robust_gaussian",
    "statistics.robust_gradient_descent": "training.robust_gradient_descent",
    "statistics.row_scaling": "_linalg.row_scaling",
    "statistics.rows": "_linalg.rows",
    "statistics.samples": "_linalg.samples",
    "statistics.shrinking_sample": "filters.shrinking_sample",
    "statistics.sign_votes": "_linalg.sign_votes",
    "statistics.soft_filter": "filters.soft_filter",
    "statistics.soft_mean": "statistics.moments.soft_mean",
    "statistics.spectral": "_linalg.spectral",
    "statistics.symmetric_operator": "_linalg.symmetric_operator",
    "statistics.tail_excess": "statistics.moments.tail_excess",
    "statistics.threads": "_linalg.threads",
    "statistics.total_variation": "statistics.gaussian.total_variation",
    "statistics.tukey_depth": "statistics.depth.tukey_depth",
    "statistics.tukey_median": "statistics.depth.tukey_median",
    "statistics.weiszfeld": "_linalg.weiszfeld",
    "statistics.whitening": "_linalg.whitening",
    "sweep": "records.sweep",
    "weighting": "federation.weighting",
}
"""By old name, the new one; modules within a package that is named here have moved with it."""


def new_name(old: str) -> str | None:
    """Where a module of the package is now, or `None` if it has not moved."""
    short, tail = old.removeprefix("fedrobust."), ""
    while short:
        if short in MOVED:
            return f"fedrobust.{MOVED[short]}{tail}"
        short, _, last = short.rpartition(".")
        tail = f".{last}{tail}"
    return None


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Asked first: a package under its old name has the new one's path, where a module would be found once more."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if not fullname.startswith("fedrobust.") or new_name(fullname) is None:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        new = new_name(spec.name)
        assert new is not None
        warnings.warn(f"{spec.name} has moved to {new}", DeprecationWarning, stacklevel=2)
        return importlib.import_module(new)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing is left to do: the module is the new one."""


def install() -> None:
    """Let old names be imported; once a process."""
    if not any(type(one).__name__ == _Finder.__name__ for one in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
