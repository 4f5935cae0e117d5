"""What the tests of structure files share: a water molecule as text, reading, and refusals of one line."""

import re

import numpy as np
import pytest

from vpotjax._checks import InputError
from vpotjax.molecule import molecules_from_file
from vpotjax.units import BOHR_TO_ANGSTROM

ATOMS = "O 0.0 0.0 0.1173\nH 0.0 0.7572 -0.4692\nH 0.0 -0.7572 -0.4692\n"
POSITIONS = [[0, 0, 0.1173], [0, 0.7572, -0.4692], [0, -0.7572, -0.4692]]
COLUMNS = "Properties=species:S:1:pos:R:3"
LATTICE = 'Lattice="9 0 0 0 9 0 0 0 9"'


def water(comment=""):
    return f"3\n{comment}\n{ATOMS}"


def read(folder, content, name="file.xyz", **arguments):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return molecules_from_file(path, **arguments)


def angstrom(molecule):
    return np.asarray(molecule.positions) * BOHR_TO_ANGSTROM


def refused(folder, content, message, name="file.xyz", **arguments):
    with pytest.raises(InputError) as error:
        read(folder, content, name, **arguments)
    text = str(error.value)
    assert text.startswith("structure file ")
    assert name in text
    assert "\n" not in text
    assert re.search(message, text), text
