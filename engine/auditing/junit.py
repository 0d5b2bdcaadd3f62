"""The report as JUnit XML, so that a continuous-integration server shows each check as a test."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from arcforge.engine.auditing.checks import FAIL, INCONCLUSIVE, SKIPPED

# What XML 1.0 cannot hold
_FORBIDDEN = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write_junit(report: dict[str, Any], path: Path, passing: bool) -> Path:
    """Write one test a check, and one for the verdict.

    Parameters
    ----------
    report : dict
        Of :func:`arcforge.engine.audit`.
    path : path
        The file is there as a whole or not at all.
    passing : bool
        Whether the verdict counts as passed.

    Raises
    ------
    StoreError
        The path cannot be written.
    """
    from arcforge.engine.durable import place

    suite = ElementTree.Element("testsuite", name=f"arcforge audit of {_clean(report['provenance']['path'])}")
    verdict = ElementTree.SubElement(suite, "testcase", classname="arcforge.audit", name="verdict")
    words = " ".join(filter(None, (report["verdict"], report["reason"])))
    counts = {"failure": 0, "error": 0, "skipped": 0}
    if not passing:
        _add(verdict, "failure", f"{words}: {report['because']}", counts)
    for check in report["checks"]:
        name = f"{check['id']} {check['title']}"
        case = ElementTree.SubElement(suite, "testcase", classname="arcforge.audit", name=_clean(name))
        if check["status"] == FAIL:
            # the core gate and informative checks are weighed by the verdict
            kind = "failure" if check["required"] and check["id"] != "G1" else "skipped"
            _add(case, kind, check["message"], counts)
        elif check["status"] == INCONCLUSIVE and check["required"]:
            _add(case, "error", check["message"], counts)
        elif check["status"] in (SKIPPED, INCONCLUSIVE):
            _add(case, "skipped", check["message"], counts)
        else:
            ElementTree.SubElement(case, "system-out").text = _clean(f"{check['status']}: {check['message']}")
    suite.set("tests", str(1 + len(report["checks"])))
    for kind, attribute in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
        suite.set(attribute, str(counts[kind]))
    place(path, ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True))
    return path


def _add(case: ElementTree.Element, kind: str, message: str, counts: dict[str, int]) -> None:
    ElementTree.SubElement(case, kind, message=_clean(message))
    counts[kind] += 1


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("?", text)
