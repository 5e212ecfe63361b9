"""Draw the README's hero strip from scikit-image's CC0 photograph and the packaged weights.

python scripts/draw_hero.py
"""

from __future__ import annotations

from pathlib import Path

from skimage.data import retina

from drive_unet import UNet, plots, segment

HERO = Path(__file__).resolve().parent.parent / "docs" / "hero.jpg"


def main() -> None:
    """Write docs/hero.jpg: photograph, vessels found, overlay."""
    plots.use_style()
    photograph = retina()
    segmentation = segment(UNet.from_pretrained(), photograph)
    HERO.parent.mkdir(exist_ok=True)
    plots.hero(photograph, segmentation.vessels, segmentation.fov).savefig(
        HERO, dpi=110, pil_kwargs={"quality": 85}
    )
    share = segmentation.vessels[segmentation.fov].mean()
    print(f"{HERO.name}: {HERO.stat().st_size // 1000} kB, vessels in {share:.1%} of the FOV")


if __name__ == "__main__":
    main()
