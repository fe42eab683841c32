"""The command cae-mm, beside the package, which would import PyTorch before --help is answered."""
import os
import re
import shlex
import sys
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path

PARTS = 'counts', 'options', 'python', 'terminal', 'torchrun'  # of the tools
CONFIGS = 'configs'
USAGE = """usage: cae-mm COMMAND [arguments]; cae-mm COMMAND --help lists them

The tools of cae_mm. A CONFIG is a file, or one that came with the package, by its name.

"""


def commands(tools: Path) -> dict[str, Path]:
    """The tools by the names of their commands."""
    return {path.stem.replace('_', '-'): path for path in sorted(tools.resolve().iterdir())
            if path.suffix in ('.py', '.sh') and path.stem not in PARTS}


def summary(tool: Path) -> str:
    """The first sentence of a tool."""
    return re.search(r'^(?:"""|# )(.*?)(?:\. |; |\.?(?:""")?$)', tool.read_text(encoding='utf-8'), re.M)[1]


def main() -> None:
    """Run the tool that the command line names, as ``python tools/TOOL.py`` does in a checkout."""
    home = Path(find_spec('cae_mm').origin).parent / '.mim'  # not imported
    found = commands(home / 'tools')
    name, *arguments = sys.argv[1:] or ['--help']
    if name in ('-h', '--help'):
        lines = {CONFIGS: 'Print the paths of the configs of the package whose names have all of the words',
                 **{command: summary(tool) for command, tool in found.items()}}
        print(USAGE + '\n'.join(f'  {command:<14}{line}' for command, line in sorted(lines.items())))
    elif name == CONFIGS:
        configs = (home / CONFIGS).resolve()
        print(*(path for path in sorted(configs.glob('[!_]*/**/*.py'))
                if all(word in str(path.relative_to(configs)) for word in arguments)), sep='\n')
    elif name not in found:
        near = ' or '.join(get_close_matches(name, [*found, CONFIGS]))
        print(f'cae_mm: there is no command {name}'
              + (f', do you mean {near}?' if near else '; cae-mm --help lists them'), file=sys.stderr)
        sys.exit(2)
    elif found[name].suffix == '.sh':
        os.environ.setdefault('CAE_MM_COMMAND', shlex.join(['cae-mm', name, *arguments]))
        os.environ.setdefault('PYTHON', sys.executable)
        # dist-run starts another tool, which has a name here.
        arguments[:1] = [str(found.get(word, word)) for word in arguments[:1]]
        os.execvp('bash', ['bash', str(found[name]), *arguments])
    else:
        sys.argv = [f'cae-mm {name}', *arguments]  # which runpy would change, and --help shows
        sys.path[0] = str(found[name].parent)
        code = compile(found[name].read_bytes(), found[name], 'exec')
        exec(code, dict(__name__='__main__', __file__=str(found[name])))
