"""The one private name of torch that the demo uses: the base class of dispatch modes (2.11 to 2.14)."""

from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["TorchDispatchMode"]
