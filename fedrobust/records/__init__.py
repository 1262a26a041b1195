"""What a run leaves behind: its folder, its plots, its loggers, and the report over many runs."""
