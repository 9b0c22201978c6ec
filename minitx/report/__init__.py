"""The report on a folder of studies: a ledger of claims with their evidence, as a page, as Markdown and as JSON."""

from minitx.report.ledger import Ledger, read_ledger
from minitx.report.write import write_report

__all__ = ["Ledger", "read_ledger", "write_report"]
