"""Tools answer --help before they import anything that takes seconds."""
import re
import subprocess
import sys
import time

import pytest

from cae_mm.checkpoint.layouts import LAYOUTS, NORMS
from cae_mm.evaluation.features import FEATURES

from .conftest import ROOT

TOOLS = sorted({path.name for path in (ROOT / 'tools').glob('*.py')}
               - {'options.py', 'terminal.py', 'torchrun.py'})
CHOICES = {'convert.py': (LAYOUTS, tuple(NORMS)), 'knn.py': (FEATURES,)}


@pytest.mark.parametrize('tool', TOOLS)
def test_help(tool):
    start = time.monotonic()
    ran = subprocess.run([sys.executable, '-X', 'importtime', f'tools/{tool}', '--help'], cwd=ROOT,
                         text=True, capture_output=True, check=True)
    assert time.monotonic() - start < 20  # under one where nothing else computes
    imported = set(re.findall(r'\| +(\w+)', ran.stderr))
    assert 'argparse' in imported and not imported & {'torch', 'mmengine', 'cae_mm', 'numpy', 'cv2'}
    for choices in CHOICES.get(tool, ()):
        assert f'{{{",".join(choices)}}}' in ran.stdout
