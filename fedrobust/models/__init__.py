"""The models that clients train: one architecture a file, each a component with `build(input_shape, num_classes)`."""

from fedrobust.models.base import Architecture
from fedrobust.models.dba_cnn import DBACNN
from fedrobust.models.logistic import Logistic
from fedrobust.models.mlp import MLP
from fedrobust.models.resnet18 import ResNet18
from fedrobust.models.small_cnn import SmallCNN
from fedrobust.models.text_bag import TextBag

__all__ = ["DBACNN", "MLP", "Architecture", "Logistic", "ResNet18", "SmallCNN", "TextBag"]
