"""Behind ``drive-unet check-data``: what a copy of a dataset is, what is wrong with it, and what to do."""

from __future__ import annotations

import argparse
import json

from drive_unet.commands.faults import complain, in_a_line
from drive_unet.doctor.copies import check_data


def run(options: argparse.Namespace) -> int:
    """Print the page or JSON; returns 0 fine, 1 usable with warnings, 2 unusable."""
    try:
        report = check_data(options.folder)
    except Exception as error:  # 1, by which other commands tell of it, would say that it can be used
        complain(in_a_line(error), error, options.debug)
        return 2
    print(json.dumps(report.to_dict(), indent=1) if options.json else report)
    return report.code
