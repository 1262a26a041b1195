"""fedrobust in Flower's terms; with `engines/`, the only importer of `flwr`."""
