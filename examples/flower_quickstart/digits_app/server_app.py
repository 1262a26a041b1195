"""The server: Flower's quickstart, but for the line that is marked."""

import torch
from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from digits_app.task import load_data, make_model, test
from fedrobust.aggregators import SpectralFilter
from fedrobust.flower import RobustStrategy

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train, and save the final model."""
    settings = context.run_config
    fraction = float(settings["fraction-evaluate"])
    strategy = FedAvg(fraction_evaluate=fraction)
    if settings["robust"]:
        # THE CHANGED LINE: up to a quarter of the clients may send anything.
        strategy = RobustStrategy(SpectralFilter(assumed_fraction=0.25), fraction_evaluate=fraction)

    torch.manual_seed(0)
    result = strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord(make_model().state_dict()),
        num_rounds=int(settings["num-server-rounds"]),
        evaluate_fn=evaluate_on_server,
    )
    torch.save(result.arrays.to_torch_state_dict(), str(settings["save-to"]))


def evaluate_on_server(round_number: int, arrays: ArrayRecord) -> MetricRecord:
    """Loss and accuracy on the server's test set."""
    model = make_model()
    model.load_state_dict(arrays.to_torch_state_dict())
    _, _, images, labels = load_data()
    loss, accuracy = test(model, images, labels)
    return MetricRecord({"loss": loss, "accuracy": accuracy})
