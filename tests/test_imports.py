"""Imports run downwards, the late ones too."""
import ast
import sys
from pathlib import Path

import pytest
from mmpretrain.registry import MODELS

import cae_mm

ROOT = Path(__file__).parents[1]
# The rooms, from the roof to the ground. Those of one floor do not import each other, except the first,
# the scripts. 'cae_mm' is the package itself, which fills the registries from all rooms.
FLOORS = (
    ('tools', 'demo'),
    ('cae_mm',),
    ('benchmark',),
    ('visualization',),
    ('evaluation',),
    ('hub',),
    ('engine', 'checkpoint'),
    ('models', 'datasets'),
    ('transforms',),
    ('configs', 'positions', 'disk', 'ops', 'seal', 'parts', 'dependencies'),
    ('atomic',),
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
FILES = {str(path.relative_to(ROOT)): path for top in ('cae_mm', 'tools', 'demo')
         for path in sorted((ROOT / top).rglob('*.py'))}


def room_of(module):
    """The room of a module's full name, None for one of another project."""
    first, _, rest = module.partition('.')
    if first == 'cae_mm' and rest.partition('.')[0] in FLOOR_OF:
        return rest.partition('.')[0]
    return first if first in ('cae_mm', 'tools', 'demo') else None


def imports(file):
    """The line and the full name of each import of a file, wherever it stands."""
    package = Path(file).parent.parts
    for node in ast.walk(ast.parse(FILES[file].read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[:len(package) - node.level + 1] if node.level else ()
            for alias in node.names:  # `from cae_mm import hub` imports a room
                yield node.lineno, '.'.join([*above, *filter(None, [node.module]), alias.name])


@pytest.mark.parametrize('file', FILES)
def test_imports_run_downwards(file):
    room = room_of('.'.join(Path(file).with_suffix('').parts))
    wrong = [f'line {line}: {module}' for line, module in imports(file)
             if room_of(module) not in (None, room) and FLOOR_OF[room_of(module)] <= FLOOR_OF[room] > 0]
    assert not wrong


def test_models_need_no_more_than_torch_timm_the_registries_and_the_ground_floor():
    modules = [module for file in FILES if file.startswith('cae_mm/models/') for _, module in imports(file)]
    assert set(map(room_of, modules)) <= {None, 'models', *FLOORS[-2], *FLOORS[-1]}
    libraries = {module.partition('.')[0] for module in modules}
    assert libraries - set(sys.stdlib_module_names) == {
        'torch', 'torchvision', 'timm', 'mmengine', 'mmpretrain', 'cae_mm'}


def test_beside_transformers_5():
    """Which mmpretrain's language models cannot import: they say so, and all the rest works."""
    assert cae_mm.dependencies.transformers_version() >= 5
    with pytest.raises(ImportError, match='requires extra multi-modal dependencies'):
        MODELS.get('BlipCaption')()
