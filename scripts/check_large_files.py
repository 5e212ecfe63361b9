"""Refuse files too large to commit: `python scripts/check_large_files.py FILE...`; pre-commit calls it."""

from __future__ import annotations

import sys
from pathlib import Path

LIMIT = 1_000_000  # bytes
LIMITS = {".ipynb": 600_000, ".safetensors": 8_000_000}


def too_large(path: Path) -> str | None:
    """Return a sentence about a file above its limit, or None for one below it."""
    size, limit = path.stat().st_size, LIMITS.get(path.suffix, LIMIT)
    if size <= limit:
        return None
    return f"{path}: {size / 1000:.0f} kB, at most {limit / 1000:.0f} kB may be committed."


def main(names: list[str]) -> int:
    """Print a sentence for each file above its limit; return 1 if there is one, else 0."""
    sentences = [
        sentence for name in names if (path := Path(name)).is_file() and (sentence := too_large(path))
    ]
    print("\n".join(sentences), end="\n" if sentences else "")
    return 1 if sentences else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
