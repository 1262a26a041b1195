"""fedrobust: federated learning under attack, simulated; robust aggregation, measured."""

import logging
from importlib.metadata import PackageNotFoundError, version

from fedrobust._moved import install
from fedrobust.config.secrets import Masks

try:
    __version__ = version("fedrobust")
except PackageNotFoundError:  # run from a checkout that was not installed
    __version__ = "0+unknown"

install()
logging.getLogger("fedrobust").addFilter(Masks())
