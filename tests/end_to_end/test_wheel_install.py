"""The built wheel, installed in an empty folder and run from another one, far from the checkout."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*command: str, cwd: Path, path: Path | None = None) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    run(*command, cwd=folder)
    (built,) = folder.glob("fedrobust-*.whl")
    return built


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_its_config_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    expected = {f"fedrobust/{path.relative_to(ROOT)}" for path in (ROOT / "conf").rglob("*.yaml")} | {
        str(path.relative_to(ROOT)) for path in (ROOT / "fedrobust").rglob("*.py")
    }
    held = {name for name in names if not name.split("/")[0].endswith(".dist-info")}
    assert held == expected | {"fedrobust/py.typed"}
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


@pytest.mark.slow
def test_an_installed_copy_runs_anywhere(wheel: Path, tmp_path: Path) -> None:
    installed, elsewhere, folder = tmp_path / "installed", tmp_path / "elsewhere", tmp_path / "run"
    elsewhere.mkdir()
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", str(installed), str(wheel)]
    run(*pip, cwd=elsewhere)
    where = "import fedrobust, fedrobust.config as c; print(fedrobust.__file__, c.config_folder())"
    package = installed / "fedrobust"
    said = run(sys.executable, "-c", where, cwd=elsewhere, path=installed)
    assert said.split() == [str(package / "__init__.py"), str(package / "conf")]
    overrides = ["num_rounds=1", "num_clients=4", "verbose=false", f"hydra.run.dir={folder}"]
    run(sys.executable, "-m", "fedrobust", *overrides, cwd=elsewhere, path=installed)
    assert json.loads((folder / "summary.json").read_text())["num_rounds"] == 1
