"""One federated round (`round.py`, the map), and the parts that only it needs."""
