"""One HTML file that needs no other."""
import base64
import re
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from cae_mm.atomic import write_atomically

STYLE = '''
:root { color-scheme: light dark;
        --text: #222; --paper: #fff; --line: #ddd; --code: #f5f5f2; }
@media (prefers-color-scheme: dark) {
  :root { --text: #ddd; --paper: #161616; --line: #444; --code: #262624; }
  img { background: #fff; } }
body { font: 17px/1.55 Georgia, serif; color: var(--text); background: var(--paper); max-width: 62rem;
       margin: 2.5rem auto; padding: 0 1.2rem; }
h1, h2, th { font-family: system-ui, sans-serif; }
h1 { font-size: 1.9rem; margin-bottom: .3rem; } h2 { font-size: 1.25rem; margin-top: 2.2rem; }
/* On a phone a figure is moved aside, like a wide table, so that its words can be read. */
p { max-width: 44rem; } figure { margin: 1rem 0; overflow-x: auto; } img { max-width: max(100%, 40rem); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { padding: .35rem 1.1rem; text-align: right; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; } td { font-variant-numeric: tabular-nums; }
@media (max-width: 40rem) { th, td { padding: .35rem .5rem; } }
pre { background: var(--code); padding: .8rem 1rem; overflow-x: auto; font-size: .82rem; }
'''


@dataclass
class Section:
    """A heading with what stands below it, in this order; what is empty is left out.

    What stands between two pairs of stars in a table is bold.
    """
    title: str
    text: str = ''
    table: list[list[str]] = field(default_factory=list)  # the first row is the head
    figure: str | Path | None = None  # PNG file, copied into the report
    code: str = ''

    def html(self) -> str:
        """This section as HTML."""
        parts = [f'<h2>{escape(self.title)}</h2>']
        parts += [f'<p>{escape(text)}</p>' for text in self.text.split('\n\n') if text]
        if self.table:
            head, *rows = ([re.sub(r'\*\*(.+?)\*\*', r'<b>\1</b>', escape(cell)) for cell in row]
                           for row in self.table)
            lines = ['<tr><th>' + '</th><th>'.join(head) + '</th></tr>', *(
                '<tr><td>' + '</td><td>'.join(row) + '</td></tr>' for row in rows)]
            parts.append(f'<div class="wide"><table>{"".join(lines)}</table></div>')
        if self.figure:
            data = base64.b64encode(Path(self.figure).read_bytes()).decode()
            parts.append(f'<figure><img alt="{escape(self.title)}" '
                         f'src="data:image/png;base64,{data}"></figure>')
        if self.code:
            parts.append(f'<pre>{escape(self.code)}</pre>')
        return '\n'.join(parts)


def portable(text: str, out: Path) -> str:
    """Text without the folders of this machine: from ``out`` on, and of others the last two names."""
    text = text.replace(f'{out.parent}/', '')
    return re.sub(r'''(?<![\w.:/])/(?:[^\s'"/]+/)*([^\s'"/]+/[^\s'"/]+)''', r'\1', text)


def write_report(path: str | Path, title: str, lead: str, sections: list[Section]) -> None:
    """Write sections as one HTML file with all pictures inside; ``lead`` is what to know first."""
    body = '\n'.join(section.html() for section in sections)
    write_atomically((
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{escape(title)}</title><style>{STYLE}</style></head>\n'
        f'<body><h1>{escape(title)}</h1>\n<p>{escape(lead)}</p>\n'
        f'{body}\n</body></html>\n').encode(errors='backslashreplace'), path)
