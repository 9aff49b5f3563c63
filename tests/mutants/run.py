"""Plant known defects in a copy of the package, one at a time; a test of behaviour must fail for each: `make mutants`.

    python -m tests.mutants.run            the eight defects of public re-implementations, and ours
    python -m tests.mutants.run reward     only defects whose name holds the word

A patch must apply exactly once, the mutant must import, and what fails must be an assertion: an import, shape or type error is
no kill.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path

from tests.mutants.defects.mutant import Mutant
from tests.mutants.defects.ours import OURS
from tests.mutants.defects.public import PUBLIC

ROOT = Path(__file__).parents[2]
ASSERTIONS = ("AssertionError", "assert ", "Failed: DID NOT RAISE", "Failed: DID NOT WARN")


def main(words: list[str]) -> int:
    chosen = [m for m in PUBLIC + OURS if all(w in m.defect for w in words)]
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy = Path(folder)
        for name in ("qtransformer", "sim", "datasets", "tests"):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", copy)
        require_sound(copy, chosen)
        verdicts: dict[str, list[str | None]] = {}
        for mutant in chosen:
            verdicts.setdefault(mutant.defect, []).append(killer(copy, mutant))
            tests = verdicts[mutant.defect]
            if len(tests) < sum(m.defect == mutant.defect for m in chosen):
                continue
            if None in tests:
                print(f"SURVIVED: {mutant.defect} (planted in {mutant.file}, form {tests.index(None) + 1})", flush=True)
                continue
            form = "killed" if mutant in PUBLIC else "killed too"
            print(f"{form}: {mutant.defect} by {', '.join(dict.fromkeys(t for t in tests if t))}", flush=True)
    survivors = [defect for defect, tests in verdicts.items() if None in tests]
    print(f"{len(verdicts) - len(survivors)} of {len(verdicts)} defects killed, in {len(chosen)} forms")
    return 1 if survivors else 0


def require_sound(copy: Path, mutants: list[Mutant]) -> None:
    """Every test must pass without a defect: otherwise a failure would show nothing."""
    for tests in dict.fromkeys(m.tests for m in mutants):
        failed, passed = outcome(copy, tests)
        if failed or not passed:
            sys.exit(f"before any defect is planted, of '{tests}' {passed} tests pass and these fail: {', '.join(failed)}")


def killer(copy: Path, mutant: Mutant) -> str | None:
    """The test of behaviour that notices; None if none does."""
    path = copy / "qtransformer" / mutant.file
    sound = path.read_text()
    if sound.count(mutant.old) != 1:
        sys.exit(f"'{mutant.defect}' cannot be planted: {sound.count(mutant.old)} places in {mutant.file} read {mutant.old!r}")
    path.write_text(sound.replace(mutant.old, mutant.new))
    try:
        where = run(copy, "-c", "import qtransformer, qtransformer.cli; print(qtransformer.__file__)")
        if where.returncode or Path(where.stdout.strip()).parent != copy / "qtransformer":
            sys.exit(f"'{mutant.defect}' is not what gets imported: {where.stdout}{where.stderr}")
        failed, _ = outcome(copy, mutant.tests)
        return next((name.split("[")[0] for name, message in failed.items() if message.startswith(ASSERTIONS)), None)
    finally:
        path.write_text(sound)


def outcome(copy: Path, tests: str) -> tuple[dict[str, str], int]:
    """Failures of a selection of tests, name to message, and how many pass."""
    file, _, keep = tests.partition(" ")
    report = copy / "report.xml"
    report.unlink(missing_ok=True)
    options = ["-q", "--maxfail=8", "-p", "no:cacheprovider", "-p", "no:xdist", f"--junitxml={report}"]
    ran = run(copy, "-m", "pytest", f"tests/core/{file}", "-k", keep, *options)
    if not report.exists():
        sys.exit(f"pytest gave no report for {tests}:\n{ran.stdout}{ran.stderr}")
    cases = ET.parse(report).getroot().findall(".//testcase")
    failed = {
        str(case.get("name")): str(bad.get("message"))
        for case in cases
        for bad in [*case.findall("failure"), *case.findall("error")]
    }
    return failed, len(cases) - len(failed)


def run(copy: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Python in the copy, which comes before the installed project; one thread."""
    path = os.pathsep.join(str(copy / name) for name in ("", "sim", "datasets"))
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *arguments], cwd=copy, env=environment, capture_output=True, text=True, timeout=600)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
