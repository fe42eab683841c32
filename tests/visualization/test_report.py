"""A report that needs no other file."""
import base64
import os
import re
from pathlib import Path

from PIL import Image

from cae_mm.visualization import Section, write_report
from cae_mm.visualization.report import portable


def test_is_self_contained(tmp_path):
    Image.new('RGB', (7, 5), 'red').save(tmp_path / 'figure.png')
    write_report(tmp_path / 'out' / 'report.html', 'A & B', 'Lead <1>.', [
        Section('Numbers', 'First.\n\nSecond.', [['what', 'a', 'b'], ['row', '**1** ± 2', '<2>']]),
        Section('Picture', figure=tmp_path / 'figure.png'),
        Section('Name', os.fsdecode(b'caf\xe9.jpg')),
        Section('Again', code='python tool.py "x" && y')])
    html = (tmp_path / 'out' / 'report.html').read_text()
    assert not re.search(r'(?:src|href)=["\'](?!data:)|https?://|@import|url\(', html)
    data = re.search(r'src="data:image/png;base64,([^"]+)"', html).group(1)
    assert base64.b64decode(data) == (tmp_path / 'figure.png').read_bytes()
    assert html.count('<td>') == 3 and html.count('<th>') == 3
    for text in ('A &amp; B', 'caf\\udce9.jpg', 'Lead &lt;1&gt;.', '&lt;2&gt;', '<p>Second.</p>',
                 '<td><b>1</b> ± 2</td>', 'python tool.py &quot;x&quot; &amp;&amp; y'):
        assert text in html


def test_commands_have_no_folders_of_this_machine():
    out = Path('/home/me/work/demo_out')
    command = (f"python tools/train.py configs/a.py --work-dir {out}/cae --data-root /mnt/data/coco "
               f"'/x/my own/b c' --cfg-options tokenizer={out}/d/e.pth shards=s3://a/b/c --out /tmp 3/4")
    assert portable(command, out) == (
        "python tools/train.py configs/a.py --work-dir demo_out/cae --data-root data/coco "
        "'x/my own/b c' --cfg-options tokenizer=demo_out/d/e.pth shards=s3://a/b/c --out /tmp 3/4")
