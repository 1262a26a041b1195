"""Local training: one loop, alone or as a cohort, with hooks. Attacks and clients both stand on it."""
