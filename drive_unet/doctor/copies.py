"""The data doctor: what a copy of a dataset is, what is wrong with it file by file, and what to do then."""

from __future__ import annotations

import html
import io
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from drive_unet.data.archives import is_image, is_junk, unpack
from drive_unet.data.drive_copies import DRIVE, is_rite, zips
from drive_unet.data.find import DriveFolder, called, find_dataset
from drive_unet.data.known import Known, count_of
from drive_unet.data.layouts import EMBEDDED, NAMED, PUBLISHED
from drive_unet.data.pairing import AGAIN, Pair, listed
from drive_unet.data.store import each
from drive_unet.doctor.inspection import (
    ERROR,
    NOTE,
    OWN_LABEL,
    WARNING,
    Finding,
    Inspected,
    compare_labels,
    inspect,
    told,
    worst_first,
)
from drive_unet.doctor.survey import survey
from drive_unet.errors import DataError

OFFICIAL = "DRIVE, as the official download is today (no test labels)"
HISTORICAL = "DRIVE, the historical archive (with test labels)"
PART = "a part of DRIVE"
REPACKED = "DRIVE's own photographs, repacked (as copies on Kaggle are)"
MIRROR = "a mirror of DRIVE whose photographs were flipped or renumbered"
CONVERTED = "named as DRIVE is, but no photograph has DRIVE's pixels"
RITE = "RITE, not DRIVE"
UNKNOWN = "no dataset that is known here"
_KEEP = 100  # thinned-out photographs that are kept for comparisons
_VERDICTS = {0: "fine", 1: "usable, with warnings", 2: "unusable as it is"}


@dataclass
class DataReport:
    """What `check_data` found: it prints itself as a page, and shows itself in a notebook.

    Attributes:
        path: what was checked.
        kind: what it is, in words.
        layout: the name of its layout as `find_dataset` reads it, or None if it cannot be read.
        photographs: by split, "training" and "test", how many.
        labelled: by split, how many of them have vessel labels.
        encodings: by kind of file how many there are of each size, format, mode and range of levels.
        findings: what is wrong, the worst first, and what to do.
        folder: what to name as ``--data`` or DRIVE_UNET_DATA; None where nothing can be used.
    """

    path: Path
    kind: str = UNKNOWN
    layout: str | None = None
    photographs: dict[str, int] = field(default_factory=dict)
    labelled: dict[str, int] = field(default_factory=dict)
    encodings: dict[str, dict[str, int]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    folder: Path | None = None

    @property
    def code(self) -> int:
        """0 fine, 1 usable with warnings, 2 unusable."""
        levels = {finding.level for finding in self.findings}
        return 2 if ERROR in levels or self.folder is None else 1 if WARNING in levels else 0

    @property
    def verdict(self) -> str:
        """One line that ends the page."""
        count = Counter(finding.level for finding in self.findings)
        numbers = [f"{count[level]} {level}{'s' * (count[level] > 1)}" for level in (ERROR, WARNING)]
        numbers = [number for number in numbers if not number.startswith("0")]
        return _VERDICTS[self.code] + (f" ({', '.join(numbers)})" if numbers else "")

    def to_dict(self) -> dict[str, Any]:
        """All of it in JSON types."""
        return {
            "path": str(self.path),
            "kind": self.kind,
            "layout": self.layout,
            "photographs": self.photographs,
            "labelled": self.labelled,
            "encodings": self.encodings,
            "findings": [
                asdict(finding) | {"files": [self._short(file) for file in finding.files]}
                for finding in self.findings
            ],
            "folder": None if self.folder is None else str(self.folder),
            "verdict": self.verdict,
            "code": self.code,
        }

    def __str__(self) -> str:
        lines = [f"{self.path}: {self.kind}"]
        for split, count in self.photographs.items():
            labels = self.labelled.get(split, 0)
            words = f"{labels} with vessel labels" if labels else "without vessel labels"
            lines.append(f"  {split}: {count} photographs, {words}")
        for kind, forms in self.encodings.items():
            parts = [f"{count} x {form}" for form, count in sorted(forms.items(), key=lambda form: -form[1])]
            lines.append(f"  {kind}: {'; '.join(parts[:4])}{' and others' * (len(parts) > 4)}")
        for finding in self.findings:
            files = f"{listed(map(self._short, finding.files), 6)} " if finding.files else ""
            lines.append(f"\n{finding.level}: {files}{finding.what}")
            if finding.do:
                lines.append(f"  to do: {finding.do}")
        lines.append(f"\nFolder: {self.folder if self.folder is not None else 'none that can be used'}")
        lines.append(f"Verdict: {self.verdict}")
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"

    def _short(self, file: Path) -> str:
        inside = file != self.path and file.is_relative_to(self.path)
        return file.relative_to(self.path).as_posix() if inside else str(file)


def check_data(root: str | Path | None = None, *, progress: bool = True) -> DataReport:
    """Say what a copy of a dataset is, what is wrong with it file by file, and what to do about it.

    Photographs are recognised by checksums of their decoded pixels, mirrored and turned ones too, so that
    other names and other lossless formats do not mislead. Nothing is changed; archives are unpacked into the
    cache.

    Args:
        root: a folder or zip archive, "embedded", or None for what `find_dataset` takes by itself.
        progress: show a progress bar where it takes longer than two seconds.

    Returns:
        The report; it raises nothing for whatever lies there.
    """
    if root is None or str(root) == EMBEDDED:
        try:
            dataset: DriveFolder | None = _quietly(root)
        except DataError as error:
            path = Path(root or ".")
            return DataReport(path, findings=[told("refused", error, path)])
        root = dataset.root
    path = Path(root)
    report = DataReport(path)
    try:
        path = report.path = path.expanduser()
    except RuntimeError:  # a home that nobody has: `find_dataset` says it better
        pass
    refusal = None
    try:
        dataset = _quietly(path)
    except DataError as error:
        dataset, refusal = None, told("refused", error, path)
    there = os.path.exists(path)  # False, where Path.exists raises for a name that no system takes
    if not there or (path.is_file() and dataset is None):
        report.findings = [refusal]
        return report
    try:
        trees = [path] if path.is_dir() else [unpack(path)]
        trees += [unpack(archive) for archive in zips(path)] if path.is_dir() and dataset is not None else []
        _examine(report, trees, dataset, refusal, progress)
    except (DataError, OSError) as error:
        report.findings.append(
            refusal or Finding(ERROR, "unreadable", str(error), "see what the system says")
        )
    report.findings = worst_first(_grouped(report.findings))
    if refusal is None and ERROR not in {finding.level for finding in report.findings}:
        report.folder = path
    return report


def _quietly(root: str | Path | None) -> DriveFolder:
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        return find_dataset(root)


def _examine(
    report: DataReport,
    trees: list[Path],
    dataset: DriveFolder | None,
    refusal: Finding | None,
    progress: bool,
) -> None:
    report.layout = dataset.kind if dataset else None
    rite = any(is_rite(folder) for tree in trees for folder in _folders(tree))
    if dataset is not None:
        jobs = [(pair, "training") for pair in dataset.training] + [(pair, "test") for pair in dataset.test]
        smooth, layout = dataset.smooth, dataset.kind
    else:
        jobs, missing, layout = survey(trees)
        smooth = True
        report.findings += missing
    few = len(jobs) <= _KEEP

    def look(job: tuple[Pair, str]) -> Inspected:
        return inspect(*job, smooth, few)

    inspected = each(look, jobs, "checking", shown=progress)
    compare_labels(inspected)
    for part in inspected:
        report.findings += part.findings
    for split in ("training", "test"):
        parts = [part for part in inspected if part.split == split]
        if parts:
            report.photographs[split] = len(parts)
            report.labelled[split] = sum(part.pair.vessels is not None for part in parts)
    report.encodings = _encodings(inspected)
    report.findings += _files(trees)
    report.findings += _twice(inspected)
    report.findings += _own_labels(inspected)
    report.findings += _without_masks(dataset, inspected)
    report.kind, findings = _kind(layout, inspected, rite, report)
    report.findings += findings
    if refusal is not None and ERROR not in {finding.level for finding in report.findings}:
        report.findings.append(refusal)
    elif refusal is not None:  # it names one of them; what it says of the whole may be new
        refusal.level = NOTE
        refusal.what = " ".join(["the loaders say:", *map(str, refusal.files), refusal.what])
        refusal.files = []
        report.findings.append(refusal)


def _kind(
    layout: str | None, inspected: list[Inspected], rite: bool, report: DataReport
) -> tuple[str, list[Finding]]:
    """What a copy is, and what follows from it."""
    if rite:
        what = "its training labels were modified and its test labels are the second observer's"
        return RITE, [Finding(ERROR, "rite", what, "download DRIVE itself")]
    if layout == EMBEDDED:
        return called(EMBEDDED), []
    known = [part for part in inspected if part.known is not None and part.known.dataset == DRIVE.name]
    if known and layout in (None, DRIVE.name):
        return _drive(inspected, known, report)
    if layout is None:
        return UNKNOWN, []
    if layout == DRIVE.name:
        sizes = {part.size for part in inspected if part.size}
        why = "they were resized" if DRIVE.size not in sizes else "they were compressed again with loss"
        what = f"no photograph has DRIVE's pixels: {why}, or are others"
        return CONVERTED, [Finding(WARNING, "converted", what, "download DRIVE itself")]
    return _published(layout, inspected)


def _drive(
    inspected: list[Inspected], known: list[Inspected], report: DataReport
) -> tuple[str, list[Finding]]:
    """Which of DRIVE's copies it is, of whose photographs some are known."""
    findings, turned, renamed = _moved(DRIVE.name, known)
    astray = [part for part in known if part.known.split == "test" and part.split == "training"]
    foreign = [part for part in inspected if part.known is None and part.size]
    if astray:
        what = "are of the official test set: scores on that would be scores on what was learned"
        findings.append(_about(ERROR, "test-among-training", what, astray))
    if foreign:
        findings.append(_about(WARNING, "foreign", "are not from DRIVE, by their pixels", foreign))
    moved = {id(part) for part in turned + renamed}
    for split in ("training", "test"):
        parts = [part for part in known if part.split == split]
        if 2 * sum(id(part) in moved for part in parts) > len(parts):
            return MIRROR, findings
    by_split = Counter(photograph.split for photograph in {part.known for part in known})
    whole = all(by_split[split] == count_of(DRIVE.name, split) for split in ("training", "test"))
    plain = all(part.pair.image.suffix.lower() == ".tif" for part in inspected) and all(
        path.suffix.lower() == ".gif"
        for part in inspected
        for path in (part.pair.vessels, part.pair.fov)
        if path
    )
    if not whole:
        lacking = [split for split in ("training", "test") if not by_split[split]]
        words = f"{len(known)} photographs of DRIVE" + (f", none of them for {lacking[0]}" if lacking else "")
        findings.append(Finding(NOTE, "part", words))
        return PART, findings
    if not (plain and report.labelled.get("training")):
        return REPACKED, findings
    if report.labelled.get("test"):
        what = "test labels are here: score on them once, at the end, and choose nothing on them"
        return HISTORICAL, [*findings, Finding(NOTE, "test-labels", what)]
    what = "test photographs have no labels, which is normal: scores are computed on held-out training ones"
    return OFFICIAL, [*findings, Finding(NOTE, "no-test-labels", what)]


def _moved(dataset: str, known: list[Inspected]) -> tuple[list[Finding], list[Inspected], list[Inspected]]:
    """Photographs of a dataset that lie otherwise than there, or have another name; and what to say."""
    findings = []
    turned = [part for part in known if part.known.turned]
    if dataset == DRIVE.name:
        renamed = [part for part in known if int(part.known.name) != _number(part.pair.name)]
    else:
        renamed = [part for part in known if part.known.name != part.pair.name.lower()]
    if turned:
        what = f"are from {dataset}, mirrored or turned"
        findings.append(_about(ERROR, "turned-copies", what, turned))
    if renamed:
        pairs = [f"{part.pair.image.name} is {_official(part.known)}" for part in renamed]
        what = f"have another number than {dataset}'s: {listed(pairs, 3)}"
        findings.append(_about(ERROR, "renumbered", what, renamed))
    return findings, turned, renamed


def _published(layout: str, inspected: list[Inspected]) -> tuple[str, list[Finding]]:
    """Another dataset that is known by the names of its files, or somebody's own photographs."""
    findings, name = [], called(layout)
    for dataset in (row.name for row in PUBLISHED):
        parts = [part for part in inspected if part.known is not None and part.known.dataset == dataset]
        if dataset == layout:
            findings += _moved(dataset, parts)[0]
        elif parts:
            turned = [part for part in parts if part.known.turned]
            lie = f", {len(turned)} of them mirrored or turned" if turned else ""
            what = f"are from {dataset}{lie}: scores on {dataset} would be scores on what was learned"
            findings.append(_about(WARNING, f"{dataset.lower()}s-photographs", what, parts))
    published = next((row for row in NAMED if row.name == layout), None)
    if published is None:
        return name, findings
    count, size, present = published.photographs, published.size, len(inspected)
    if present != count:
        name += f", {present} of {count} photographs"
    other = [part for part in inspected if part.size and size and part.size != size]
    if other:
        what = f"are not {size[1]}x{size[0]} (width x height), as {layout} is: they were resized or cut"
        findings.append(_about(WARNING, "other-size", what, other))
    return name, findings


def _about(level: str, code: str, what: str, parts: Iterable[Inspected]) -> Finding:
    return Finding(level, code, what, "download the official archive", [part.pair.image for part in parts])


def _official(photograph: Known) -> str:
    """A known photograph in words: "DRIVE's training 21", "HRF's 01_h"."""
    return " ".join(filter(None, (f"{photograph.dataset}'s", photograph.split, photograph.name)))


def _number(name: str) -> int:
    digits = "".join(letter for letter in name if letter.isdigit())
    return int(digits) if digits else -1


def _own_labels(inspected: list[Inspected]) -> list[Finding]:
    """Labels and masks of known photographs that are not their dataset's own."""
    findings = []
    for kind, words in (("vessels", "vessel labels"), ("fov", "field-of-view masks")):
        others = [part for part in inspected if part.own.get(kind) is False]
        files = [getattr(part.pair, kind) for part in others if kind == "fov" or part.owner is None]
        what = (
            f"are not as the official {words}: redrawn, resized, converted with loss, or of another observer"
        )
        if files:
            findings.append(Finding(WARNING, f"other-{kind}", what, AGAIN, files))
    astray = [part for part in inspected if part.owner is not None]
    if astray:
        owners = [f"{part.pair.vessels.name} on {_official(part.owner)}" for part in astray]
        what = f"{'were' if len(astray) > 1 else 'was'} drawn on another photograph: {listed(owners, 3)}"
        findings.append(Finding(ERROR, "mismatched", what, OWN_LABEL, [part.pair.vessels for part in astray]))
    return findings


def _without_masks(dataset: DriveFolder | None, inspected: list[Inspected]) -> list[Finding]:
    """DRIVE's photographs without DRIVE's masks of the field of view."""
    files = [part.pair.image for part in inspected if part.pair.fov is None]
    if dataset is None or dataset.kind != DRIVE.name or not files:
        return []
    what = (
        "have no field-of-view masks, which DRIVE comes with: the field of view is found in the photographs, "
        "and scores inside it differ a little from those inside the masks"
    )
    return [Finding(WARNING, "no-masks", what, AGAIN, files)]


def _twice(inspected: list[Inspected]) -> list[Finding]:
    """Photographs that are there more than once, pixel for pixel, within a split or in both."""
    findings: list[Finding] = []
    first: dict[str, Inspected] = {}
    for part in inspected:
        if not part.mark:
            continue
        earlier = first.setdefault(part.mark, part)
        if earlier is part:
            continue
        files = [earlier.pair.image, part.pair.image]
        if earlier.split != part.split:
            what = "are one photograph, in training and in test: scores on it say nothing"
            findings.append(Finding(ERROR, "test-among-training", what, "leave it in one of the two", files))
        else:
            what = "are one photograph: folds may learn from what they are scored on"
            findings.append(Finding(WARNING, "twice", what, "remove one of them", files))
    return findings


def _encodings(inspected: list[Inspected]) -> dict[str, dict[str, int]]:
    """By kind of file, how many there are of each form."""
    names = {
        "image": "photographs",
        "vessels": "vessel labels",
        "fov": "fields of view",
        "second": "second labels",
    }
    result: dict[str, dict[str, int]] = {}
    for kind, name in names.items():
        forms: Counter[str] = Counter()
        for part in inspected:
            if kind in part.encodings:
                size = f"{part.size[1]}x{part.size[0]} " if kind == "image" else ""
                forms[size + part.encodings[kind]] += 1
        if forms:
            result[name] = dict(forms)
    return result


# ------------------------------------------------------------------------------------------------- files


def _folders(tree: Path) -> Iterator[Path]:
    """A folder and those below it, without litter and links, as deep as any copy is."""
    waiting = [(tree, 0)]
    while waiting:
        folder, depth = waiting.pop()
        yield folder
        if depth < 6:
            inner = [
                entry for entry in sorted(folder.iterdir()) if entry.is_dir() and not is_junk(entry.name)
            ]
            waiting += [(entry, depth + 1) for entry in inner if not entry.is_symlink()]


def _files(trees: list[Path]) -> list[Finding]:
    """Files by their names: strays, double endings, endings of another case."""
    strays, doubled, upper, empty = [], [], [], []
    for tree in trees:
        for folder in _folders(tree):
            for file in sorted(folder.iterdir()):
                if not file.is_file() or is_junk(file.name):
                    continue
                if not is_image(file.name):
                    if file.suffix.lower() not in (".zip", ".md", ".txt", ".json", ".pdf"):
                        strays.append(file)
                    continue
                if is_image(Path(file.name).stem):
                    doubled.append(file)
                if file.suffix != file.suffix.lower():
                    upper.append(file)
                if file.stat().st_size == 0:
                    empty.append(file)
    findings = [
        Finding(NOTE, "stray", "have no ending of images: passed over", "", strays),
        Finding(
            WARNING,
            "double-ending",
            "have two endings",
            "give each file one ending, that of its format",
            doubled,
        ),
        Finding(
            NOTE,
            "case",
            "have an ending in capitals, which is read here; other programs may miss them",
            "",
            upper,
        ),
        Finding(ERROR, "empty-file", "are empty", "copy or download them again", empty),
    ]
    return [finding for finding in findings if finding.files]


_SHARE = re.compile(r"(\d+(?:\.\d+)?)( ?%| grey levels)")  # or count, which differs from file to file
_PLURALS = {"is": "are", "has": "have", "does": "do", "belongs": "belong"} | {
    verb + "s": verb for verb in ("agree", "hold", "mark", "need", "show")
}
_SINGULARS = {plural: verb for verb, plural in _PLURALS.items()}


def _in_number(what: str, files: int) -> str:
    """The end of a sentence, its first word made to agree with how many files the sentence begins with."""
    verb, space, rest = what.partition(" ")
    forms = _PLURALS if files > 1 else _SINGULARS if files == 1 else {}
    return forms.get(verb, verb) + space + rest


def _spanned(whats: list[str]) -> str:
    """Sentences that differ in shares only, as one: "fills 61 to 69% of the frame"."""
    columns = zip(*map(_SHARE.findall, whats), strict=True)
    spans = []
    for column in columns:
        low, high = (pick(column, key=lambda share: float(share[0])) for pick in (min, max))
        spans.append("".join(low) if low == high else f"{low[0]} to {''.join(high)}")
    return _SHARE.sub(lambda _: spans.pop(0), whats[0])


def _grouped(findings: Iterable[Finding]) -> list[Finding]:
    """Findings that say the same of several files, up to shares and counts, as one."""
    groups: dict[tuple[str, str, str, str], list[Finding]] = {}
    for finding in findings:
        key = (finding.level, finding.code, _SHARE.sub("", finding.what), finding.do)
        groups.setdefault(key, []).append(finding)
    result = []
    for (level, code, _, do), group in groups.items():
        files = list(dict.fromkeys(file for finding in group for file in finding.files))
        what = _in_number(_spanned([finding.what for finding in group]), len(files))
        result.append(Finding(level, code, what, do, files))
    return result
