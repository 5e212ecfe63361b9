"""``python -m drive_unet`` is ``drive-unet``."""

import sys

from drive_unet.commands.main import main

if __name__ == "__main__":
    sys.exit(main())
