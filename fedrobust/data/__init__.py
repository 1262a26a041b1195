"""Data sets, how they are split over the clients, and how training images are augmented."""
