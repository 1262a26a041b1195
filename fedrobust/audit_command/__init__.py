"""The command `fedrobust-audit`: audits of a run's folder, or of anybody's model and data."""
