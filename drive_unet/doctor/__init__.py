"""What is wrong, in words: `check_data` of a copy of a dataset, `diagnose` of a network and its data."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
