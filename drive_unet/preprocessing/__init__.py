"""Before the network: `prepare` does all that it needs; the rest is what notebook 02 looks at."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
