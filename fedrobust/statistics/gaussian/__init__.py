"""The robust Gaussian: fits, distances, one dimension."""
