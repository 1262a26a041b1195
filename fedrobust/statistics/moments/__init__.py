"""Robust means and covariances."""
