"""What a reader can touch in a notebook: explorers and exercises that check themselves."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
