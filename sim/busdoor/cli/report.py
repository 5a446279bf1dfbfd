"""`busdoor report`: one HTML page to keep, send and print."""

from __future__ import annotations

from pathlib import Path


def report(directory: Path, /, *, out: Path | None = None) -> int:
    """Write a folder as an HTML page: answer, tables, figures; timelines for comparisons.

    The page needs no network and no server; open it in any browser.

    Parameters
    ----------
    directory
        A folder that compare, simulate, capacity or sweep wrote.
    out
        File for the page; by default report.html in the folder.
    """
    from busdoor.cli.report_pages import page_of
    from busdoor.core.study_paths import check_file

    file = out or directory / "report.html"
    if directory.is_dir():
        check_file(file, "--out", made=file.parent)
    print(page_of(directory).write(file))
    return 0
