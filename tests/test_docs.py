"""What the documentation names exists."""
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / 'README.md', ROOT / 'SECURITY.md', *(ROOT / 'docs').glob('*.md'),
         ROOT / 'benchmarks/README.md']


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_commands_point_to_files(page):
    text = page.read_text()
    links = [page.parent / link for link in re.findall(r'\]\((?!http)([^)#]+)', text)]
    files = [ROOT / name for name in re.findall(
        r'(?<![\w./])(?:cae_mm|configs|demo|tools|benchmarks|tests)/(?:[\w/]+\.\w+|[\w/]*/)(?!\w)', text)]
    assert links or files
    missing = [str(path) for path in links + files if not path.exists()]
    assert not missing
