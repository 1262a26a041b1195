"""The clients' side of a round: local training, one by one or as a cohort."""
