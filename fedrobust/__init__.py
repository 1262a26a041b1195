"""fedrobust: federated learning under attack, simulated; robust aggregation, measured."""

from importlib.metadata import PackageNotFoundError, version

from fedrobust._moved import install

try:
    __version__ = version("fedrobust")
except PackageNotFoundError:  # run from a checkout that was not installed
    __version__ = "0+unknown"

install()
