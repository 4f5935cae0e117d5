"""All code of README and documentation, block by block, each page from nothing."""

import re
from pathlib import Path

import jax
import pytest

import vpotjax as vp
from vpotjax.train.config import read_config

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NOT_RUN = {"from dask_jobqueue": "needs SLURM"}


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def double_precision_after():
    before = jax.config.jax_enable_x64
    yield
    jax.config.update("jax_enable_x64", before)


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=lambda p: p.stem)
def test_code_runs(page, double_precision_after):
    names = {}
    for code in blocks(page, "python"):
        if not any(code.startswith(start) for start in NOT_RUN):
            exec(code.replace("range(50)", "range(12)"), names)
    if page.stem == "README":  # its own loop
        assert 1.0 < names["error"] < 6.0


def test_the_own_loop_is_short():
    (loop,) = [code for code in blocks(ROOT / "README.md", "python") if "optax" in code]
    assert len(loop.splitlines()) < 40


@pytest.mark.parametrize("text", [text for p in PAGES for text in blocks(p, "toml")])
def test_configurations_are_read(text, tmp_path):
    (tmp_path / "config.toml").write_text(text, encoding="utf-8")
    place, training = read_config(tmp_path / "config.toml")
    assert place.data
    assert training.loss(1.0)
    (tmp_path / "config.toml").write_text(text + "stepz = 3\n", encoding="utf-8")
    with pytest.raises(vp.InputError, match="steps"):
        read_config(tmp_path / "config.toml")
