"""The command `fedrobust`."""
