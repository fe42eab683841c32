"""A report that needs no other file."""
import base64
import os
import re

from PIL import Image

from cae_mm.visualization import Section, write_report


def test_is_self_contained(tmp_path):
    Image.new('RGB', (7, 5), 'red').save(tmp_path / 'figure.png')
    write_report(tmp_path / 'out' / 'report.html', 'A & B', 'Lead <1>.', [
        Section('Numbers', 'First.\n\nSecond.', [['what', 'a', 'b'], ['row', '**1** ± 2', '<2>']]),
        Section('Picture', figure=tmp_path / 'figure.png', caption='Red.'),
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
