"""python -m cae_mm PACKAGE TOOL ...: a tool of mmpretrain, mmdet or mmseg, with cae_mm imported before it.

Theirs read a config before they import what it names, and some import operators before that.
"""
import runpy
import sys
from importlib.util import find_spec
from pathlib import Path


def main() -> None:
    """Run PACKAGE's .mim/tools/TOOL.py.

    Raises:
        SystemExit: for a tool that is not there, naming the place where it would be.
    """
    if len(sys.argv) < 3:
        sys.exit('usage: python -m cae_mm PACKAGE TOOL ..., such as mmdet train CONFIG '
                 'or mmdet analysis_tools/get_flops CONFIG')
    home = getattr(find_spec(sys.argv[1]), 'origin', None)
    if home is None:
        sys.exit(f'cae_mm: there is no package {sys.argv[1]}: mmpretrain, mmdet and mmseg have tools')
    tool = Path(home).parent / '.mim/tools' / f'{sys.argv[2]}.py'
    if not tool.is_file():
        sys.exit(f'cae_mm: there is no {tool}')
    del sys.argv[:2]
    sys.path.insert(0, str(tool.parent))
    runpy.run_path(str(tool), run_name='__main__')


if __name__ == '__main__':
    main()
