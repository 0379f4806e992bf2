"""What C and Python say of the same bytes is the same."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from struct import Struct

import pytest

import stallscope.pulse
from stallscope.agent import layout
from stallscope.agent import pulse as records

SOURCES = Path(stallscope.pulse.__file__).parent
NAMES = re.findall(r"^#define (\w+) ", (SOURCES / "layout.h").read_text(), re.MULTILINE)

# As the agent unpacks what the pulse hands over: native byte order, no padding.
STRUCTS = {
    "record_head": records.RECORD_HEAD,
    "stall_head": records.STALL_HEAD,
    "call": records.CALL,
    "tick": records.TICK,
    "part": records.PART,
    "seen": Struct(records.CALL.format + records.WEIGHT.format.lstrip("=")),
}


@pytest.fixture(scope="module")
def in_c(compiler: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """Constants and sizes as the C compiler sees them."""
    folder = tmp_path_factory.mktemp("layout")
    lines = [f'printf("{name} %llu\\n", (unsigned long long){name});' for name in NAMES]
    lines += [f'printf("{name} %zu\\n", sizeof(struct {name}));' for name in STRUCTS]
    program = '#include <stdio.h>\n#include "pulse.h"\nint main(void) {\n' + "\n".join(lines) + "\n}\n"
    (folder / "layout.c").write_text(program)
    command = [compiler, "-std=c11", "-D_GNU_SOURCE", f"-I{SOURCES}", "layout.c", "-o", "layout"]
    subprocess.run(command, cwd=folder, check=True)
    out = subprocess.run([folder / "layout"], capture_output=True, text=True, check=True).stdout
    return {name: int(value) for name, value in (line.split() for line in out.splitlines())}


def test_the_header_has_constants() -> None:
    assert len(NAMES) > 20


@pytest.mark.parametrize("name", NAMES)
def test_a_constant_is_the_same_in_the_agent(name: str, in_c: dict[str, int]) -> None:
    assert in_c[name] == getattr(layout, name)


@pytest.mark.parametrize("name", STRUCTS)
def test_a_struct_has_the_size_that_the_agent_unpacks(name: str, in_c: dict[str, int]) -> None:
    assert in_c[name] == STRUCTS[name].size


def test_the_bucket_of_a_duration_is_the_same(compiler: str, tmp_path: Path) -> None:
    durations = sorted({n for k in range(64) for n in ((1 << k) - 1, 1 << k, (1 << k) + (1 << k >> 2)) if n < 1 << 64})
    program = '#include <stdio.h>\n#include "pulse.h"\nint main(void) {\n'
    program += "\n".join(f'printf("%u\\n", bucket_of({n}ull));' for n in durations) + "\n}\n"
    (tmp_path / "buckets.c").write_text(program)
    subprocess.run(
        [compiler, "-std=c11", "-D_GNU_SOURCE", f"-I{SOURCES}", "buckets.c", "-o", "buckets"], cwd=tmp_path, check=True
    )
    out = subprocess.run([tmp_path / "buckets"], capture_output=True, text=True, check=True).stdout
    assert [int(line) for line in out.split()] == [layout.bucket_of(n) for n in durations]
