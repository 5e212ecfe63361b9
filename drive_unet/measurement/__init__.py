"""Vessels in numbers: density, calibre, branching, tortuosity; arrays in, numbers out.

docs/measurements.md says what each is, and what it is blind to.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
