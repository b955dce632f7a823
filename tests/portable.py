"""Do the notebooks' outputs hold on other processors? `make portable`.

    python tests/portable.py [NUMBER ...]

A library picks its instructions by the processor it finds, and another choice adds
numbers in another order, or rounds once where this one rounds twice. What nbval
compares must not depend on that: it is exact, or decided with a margin. So nbval runs
the notebooks as on two older processors: with the oldest instructions that the
libraries can be told to use, and with AVX2. Arm has no AVX2: there, one setting only.
"""

import platform
import subprocess
import sys

from numpy._core import _multiarray_umath as numpy_core

from notebooks import ROOT, find, teaching
from processes import private_environment

#: For PyTorch, OpenBLAS (in numpy and scipy), MKL and oneDNN (in PyTorch), and the C
#: library of Linux. MKL_ENABLE_INSTRUCTIONS does nothing on AMD; MKL_CBWR does.
OLDEST = {"ATEN_CPU_CAPABILITY": "default", "OPENBLAS_CORETYPE": "ARMV8"}
if platform.machine().lower() in ("x86_64", "amd64"):
    OLDEST |= {
        "OPENBLAS_CORETYPE": "Nehalem",
        "MKL_CBWR": "COMPATIBLE",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-FMA",
    }
AVX2 = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "OPENBLAS_CORETYPE": "Haswell",
    "MKL_CBWR": "AVX2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
}
#: MKL, oneDNN and the C library cannot be asked what they make of it.
REPORT = """
import scipy.linalg, threadpoolctl, torch
from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__
blas = {x.get("architecture") for x in threadpoolctl.threadpool_info()} - {None}
beyond = [f for f in __cpu_dispatch__ if __cpu_features__[f]]
print("  PyTorch says", torch.backends.cpu.get_cpu_capability(), end=", OpenBLAS ")
print(*blas, end=", numpy: " + " ".join(beyond or ["its baseline"]) + chr(10))
"""


def settings() -> dict[str, dict[str, str]]:
    """Return environment variables, by the name of the setting."""
    has = numpy_core.__cpu_features__
    # numpy warns when it is told to do without what the processor lacks anyway.
    beyond = [f for f in numpy_core.__cpu_dispatch__ if has[f]]
    found = {"oldest": OLDEST | {"NPY_DISABLE_CPU_FEATURES": " ".join(beyond)}}
    if has.get("AVX2"):
        newer = [f for f in beyond if f.startswith(("AVX512", "X86_V4"))]
        found["AVX2"] = AVX2 | {"NPY_DISABLE_CPU_FEATURES": " ".join(newer)}
    return found


def holds(name: str, variables: dict[str, str], paths: list[str]) -> bool:
    """Run nbval in a setting, which the kernels and their processes inherit."""
    told = [f"  {k}={v}" for k, v in variables.items()]
    print(f"{name}:", *told, sep="\n", flush=True)
    pytest = [sys.executable, "-m", "pytest", "-n", str(min(2, len(paths)))]
    pytest += ["--dist", "loadfile", "--nbval-lax", "--nbval-current-env", *paths]
    pytest += ["tests/conftest.py"]
    with private_environment() as env:
        run = {"cwd": ROOT, "env": env | variables}
        subprocess.run([sys.executable, "-c", REPORT], check=True, **run)
        return subprocess.run(pytest, **run).returncode == 0


if __name__ == "__main__":
    paths = [*map(str, find(ROOT, sys.argv[1:]) + teaching(ROOT, sys.argv[1:]))]
    if not paths:
        sys.exit("no such notebook")
    chosen = settings()
    failed = [name for name in chosen if not holds(name, chosen[name], paths)]
    if len(chosen) == 1:
        print("This processor has no AVX2, so there was one setting only.")
    sys.exit(f"some outputs differ: {', '.join(failed)}" if failed else None)
