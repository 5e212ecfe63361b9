"""Training: `fit`, what it leaves behind, and what weights have learned from."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
