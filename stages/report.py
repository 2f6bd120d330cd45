"""Put everything on one page."""

from pathlib import Path

from sg import paths
from sg.report.page import write_page
from sg.report.provenance import commit, versions
from sg.stage import stage

if __name__ == "__main__":
    with stage("report", __doc__) as run:
        page = run.output(paths.REPORT) / "index.html"
        write_page(page, Path("."), run.read(""), versions(), commit(Path(".")))
        run.summary(f"{paths.REPORT / page.name}, {page.stat().st_size / 1e6:.1f} MB; open it in a browser")
