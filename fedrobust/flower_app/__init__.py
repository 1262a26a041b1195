"""The Flower app that `flwr run` starts: its ServerApp and its ClientApp."""
