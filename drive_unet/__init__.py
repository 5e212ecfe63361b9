"""Retinal vessel segmentation with a U-Net: the package that the notebooks import.

`__init__.pyi` lists the public surface. Names are loaded when first used, so that `import drive_unet`
costs nothing.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
