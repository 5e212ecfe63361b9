"""List the checksums by which `drive-unet check-data` knows genuine photographs and labels.

`python scripts/list_known_pixels.py DRIVE=path/to/DRIVE HRF=path/to/HRF` reads genuine copies and writes
`drive_unet/data/known_pixels.json`: 16 hexadecimal digits of SHA-256 for each photograph, label and field of
view, from which no pixel can be had.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from drive_unet.data import known
from drive_unet.data.find import find_dataset
from drive_unet.data.reading import read_image, read_mask

TARGET = Path(known.__file__).with_name(known.TABLE)


def table(root: str) -> dict[str, object]:
    """Return the size and the checksums of the dataset at `root`, which must be one that is known by name."""
    dataset = find_dataset(root)
    kinds: dict[str, dict[str, str]] = {"image": {}, "vessels": {}, "fov": {}}
    for split, pairs in (("training", dataset.training), ("test", dataset.test)):
        for pair in pairs:
            image = read_image(pair.image)
            key = f"{split}/{pair.name}" if dataset.test else pair.name
            kinds["image"][key] = known.checksum(image)
            if pair.vessels is not None:
                vessels = read_mask(pair.vessels, smooth=dataset.smooth, coloured=pair.coloured)
                kinds["vessels"][key] = known.checksum(vessels)
            if pair.fov is not None:
                kinds["fov"][key] = known.checksum(read_mask(pair.fov))
    return {"size": list(image.shape[:2]), **kinds}


def main(arguments: list[str]) -> None:
    """Write the checksums of the datasets named as NAME=FOLDER."""
    if not arguments or not all("=" in argument for argument in arguments):
        raise SystemExit(__doc__)
    tables = {name: table(root) for name, root in (argument.split("=", 1) for argument in arguments)}
    TARGET.write_text(json.dumps(tables, indent=1) + "\n", encoding="utf-8")
    print(f"{TARGET}: {sum(len(part['image']) for part in tables.values())} photographs")


if __name__ == "__main__":
    main(sys.argv[1:])
