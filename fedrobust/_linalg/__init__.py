"""Private: what can be asked of an (n, d) matrix of updates or samples, at the speed of its kernels."""
