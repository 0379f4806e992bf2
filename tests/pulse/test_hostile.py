"""What would break a careless hook: the program ends as it would bare, and the recording can be read.

A hang shows as ``subprocess.TimeoutExpired`` of the runner.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from stallscope import pulse
from stallscope.recording.nouns import Recording
from tests.end_to_end.observing import bare, observed, recorded, write

pytestmark = pytest.mark.skipif(pulse.unusable_reason() is not None, reason=f"no pulse: {pulse.unusable_reason()}")


def survives(directory: Path, program: str, *words: str) -> Recording:
    """Run the program bare and observed: the same output and exit code; what was recorded."""
    write(directory, "hostile.py", program)
    expected, watched = bare(directory, "hostile.py", *words), observed(directory, "hostile.py", *words)
    assert (watched.code, watched.stdout, watched.stderr) == (expected.code, expected.stdout, expected.stderr)
    recording = recorded(directory)
    assert recording.complete
    assert recording.fidelity.level == "pulse"
    return recording


def test_libraries_loaded_and_unloaded_all_the_time(tmp_path: Path) -> None:
    """The loader's list has an object in it before its words are relocated: they are not for us to write then."""
    recording = survives(
        tmp_path,
        """
        import _ctypes, asyncio, glob, itertools, sysconfig

        async def main():
            found = sorted(glob.glob(sysconfig.get_config_var("DESTSHARED") + "/*.so"))
            for path in itertools.islice(itertools.cycle(found), 1000):
                handle = _ctypes.dlopen(path, 2)
                await asyncio.sleep(0)
                _ctypes.dlclose(handle)

        asyncio.run(main())
        """,
    )
    (loop,) = recording.loops
    assert sum(loop.counts.values()) > 1000
