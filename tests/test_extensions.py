"""How the package and its extensions load."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

from spectrafuse._runtime import extensions


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.process
def test_import_is_light():
    """Beyond torch, a few of our own modules and none of the heavy libraries."""
    code = (
        "import sys, json, torch\n"
        "before = set(sys.modules)\n"
        "import spectrafuse\n"
        "spectrafuse.use_backend\n"
        "print(json.dumps(sorted(set(sys.modules) - before)))\n"
    )
    brought = json.loads(python(code))
    heavy = {"sklearn", "scipy", "matplotlib", "h5py", "typer", "rich", "triton", "spectrafuse._cpu"}
    assert not heavy & set(brought)
    assert {"spectrafuse", "spectrafuse.backends"} <= set(brought)
    assert len([name for name in brought if name.startswith("spectrafuse")]) <= 9, brought


@pytest.mark.slow
@pytest.mark.process
def test_operations_import_without_the_extension():
    code = (
        "import sys\n"
        "class Block:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name in ('spectrafuse._cpu', 'spectrafuse._cuda', 'triton'):\n"
        "            raise ModuleNotFoundError(name=name)\n"
        "sys.meta_path.insert(0, Block())\n"
        "import torch, spectrafuse.ops as ops\n"
        "from spectrafuse import backends\nfrom spectrafuse._runtime import extensions\n"
        "ops.mean_shift_assign(torch.ones(1, 3, 4, 5), torch.ones(2, 3), torch.ones(()))\n"
        "reasons = extensions.cpu_reason(), extensions.cuda_reason()\n"
        "print(backends.choose('mean_shift_assign', 'cpu'), *reasons, sep=' | ')\n"
    )
    chosen, cpu, cuda = python(code).strip().split(" | ")
    assert chosen == "torch"
    assert cpu == "the extension spectrafuse._cpu was not built"
    assert cuda.startswith("this installation was built without CUDA: ")


@pytest.mark.slow
@pytest.mark.process
def test_one_openmp_runtime_serves_torch_and_the_kernels():
    code = (
        "import torch, re\n"
        "from spectrafuse.ops import mean_shift_assign\n"
        "torch.set_num_threads(2)\n"
        "torch.ones(500, 500) @ torch.ones(500, 500)\n"
        "mean_shift_assign(torch.ones(2, 3, 40, 50), torch.ones(2, 3), torch.ones(()))\n"
        "lines = open('/proc/self/maps').read().splitlines()\n"
        "print(len({l.split()[-1] for l in lines if re.search(r'lib(g|i)?omp[^/]*$', l)}))\n"
    )
    assert python(code).strip() == "1"


@pytest.mark.slow
@pytest.mark.process
def test_one_thread_opens_no_parallel_region():
    """With one thread the process never starts a second."""
    code = (
        "import torch, os\n"
        "torch.set_num_threads(1)\n"
        "from spectrafuse.ops import mean_shift_assign\n"
        "before = len(os.listdir('/proc/self/task'))\n"
        "mean_shift_assign(torch.ones(2, 3, 40, 50), torch.ones(2, 3), torch.ones(()))\n"
        "print(len(os.listdir('/proc/self/task')) - before)\n"
    )
    assert python(code).strip() == "0"


def test_wheel_holds_the_triton_package():
    import spectrafuse.kernels

    assert spectrafuse.kernels.__doc__


def test_the_extension_refuses_windows_it_has_no_code_for():
    with pytest.raises(ValueError, match="window must be 1, 3, .. 11"):
        extensions.cpu().mean_shift_assign_forward(0, [0] * 5, [0] * 4, 1, 13, 1.0, 1.0, *([0] * 7), 1)


def test_the_cuda_extension_imports_without_a_gpu_and_says_why_it_is_not_used():
    info = extensions.cuda_info()
    if importlib.util.find_spec("spectrafuse._cuda") is None:
        assert info == {}
        assert extensions.cuda_reason().startswith("this installation was built without CUDA: ")
    else:
        assert info["architectures"]
        if info["driver_version"] == 0:
            assert extensions.cuda_reason() == "no NVIDIA driver"
        elif not info["devices"]:
            assert extensions.cuda_reason() == info["problem"] != ""


@pytest.mark.parametrize(
    ("devices", "version", "reason"),
    [([], 0, "no NVIDIA driver"), ([], 12080, "no CUDA-capable device"), (["works"], 12080, None)],
)
def test_why_no_gpu_can_be_used(monkeypatch, devices, version, reason):
    problem = "" if devices else "no CUDA-capable device" if version else "driver version is insufficient"
    report = {"driver_version": version, "problem": problem, "devices": [{"name": d, "self_test": ""} for d in devices]}
    monkeypatch.setattr(extensions, "_load", lambda name: (SimpleNamespace(report=lambda: report), None))
    assert extensions.cuda_reason() == reason
