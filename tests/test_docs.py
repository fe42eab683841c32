"""What the documentation says exists, and what it shows runs."""
import ast
import re
from pathlib import Path

import pytest
import torch
import yaml
from mmpretrain.registry import MODELS

import cae_mm  # noqa: F401

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / 'README.md', ROOT / 'SECURITY.md', ROOT / 'CHANGELOG.md', *(ROOT / 'docs').glob('*.md'),
         ROOT / 'benchmarks/README.md']


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_commands_point_to_files(page):
    text = page.read_text()
    links = [page.parent / link for link in re.findall(r'\]\((?!http)([^)#]+)', text)]
    files = [ROOT / name for name in re.findall(
        r'(?<![\w./])(?:cae_mm|configs|demo|tools|benchmarks|tests)/(?:[\w/]+\.\w+|[\w/]*/)(?!\w)', text)]
    missing = [str(path) for path in links + files if not path.exists()]
    assert not missing
    # The site consists of docs/ alone; its pages name other files as text.
    if page.parent == ROOT / 'docs':
        assert not [link for link in links if not link.resolve().is_relative_to(ROOT / 'docs')
                    and not (ROOT / 'docs' / link.name).is_symlink()]


@pytest.mark.parametrize('page', [*(ROOT / 'docs').glob('*.md')], ids=lambda page: page.name)
def test_lines_are_not_long(page):
    assert [line for line in page.read_text().splitlines() if len(line) > 160] == []


def test_every_page_is_in_the_navigation():
    nav = re.findall(r'= "(\w+\.md)"', (ROOT / 'zensical.toml').read_text())
    assert sorted(nav) == sorted(path.name for path in (ROOT / 'docs').glob('*.md'))


def templates(node):
    """The texts that a module can say, as the parts between what it fills in."""
    for part in ast.walk(node):
        if isinstance(part, (ast.JoinedStr, ast.Constant)):
            texts = [value.value for value in getattr(part, 'values', [part])
                     if isinstance(value, ast.Constant)]
            if all(isinstance(text, str) for text in texts) and sum(map(len, texts)) > 13:
                yield texts


def holds(message, texts):
    """Whether a message has these parts in their order."""
    place = 0
    for text in texts:
        found = message.find(text, place)
        if found < 0:
            return False
        place = found + len(text)
    return True


def test_messages_of_troubleshooting_are_ours():
    quotes = re.findall(r'(?:^> .*\n)+', (ROOT / 'docs/troubleshooting.md').read_text(), re.M)
    messages = [' '.join(quote.replace('\n> ', ' ').split()) for quote in quotes]
    known = [texts for path in [*(ROOT / 'cae_mm').rglob('*.py'), ROOT / 'tools/terminal.py']
             for texts in templates(ast.parse(path.read_text()))]
    assert len(messages) > 20
    assert [text for text in messages if not any(holds(text, texts) for texts in known)] == []


def test_published_numbers_are_those_of_the_metafiles():
    section = (ROOT / 'docs/recipes.md').read_text().split('## Published numbers')[1].split('\n## ')[0]
    rows = [[cell.strip(' `') for cell in line.split('|')[1:-1]] for line in section.splitlines()
            if line.startswith('| `')]
    numbers = {}  # (pre-training, start of the downstream config's name) -> results
    for path in (ROOT / 'configs').glob('*/metafile.yml'):
        for model in yaml.safe_load(path.read_text())['Models']:
            for result in model['Results'] or ():
                for key, value in result['Metrics'].items():
                    if found := re.search(r'\((\w+)\)', key):
                        place = found[1], model['Name'].split('_cae')[0]
                        numbers.setdefault(place, []).append(str(value))
    heads = 'linear', 'attentive', 'finetune', 'upernet', 'mask_rcnn'
    told = {(row[0], head): cell.split(' / ') for row in rows
            for head, cell in zip(heads, row[1:], strict=True)}
    assert len(rows) == 4 and told == numbers


def python_of(page):
    """What the Python block of a page leaves behind."""
    block = re.search(r'^```python\n(.*?)^```', (ROOT / 'docs' / page).read_text(), re.M | re.S)
    exec(block[1], names := {})
    return names


def test_the_start_gives_the_maps_that_it_says():
    assert [tuple(one.shape) for one in python_of('start.md')['maps']] == 4 * [(1, 768, 14, 14)]


NAMES = [('backbone.patch_embed', 'embed'), ('backbone.cls', 'cls'), ('neck.mask', 'mask'),
         ('head.head', 'head'), ('.attn.q_bias', '.attn.q.bias'), ('.attn.v_bias', '.attn.v.bias'),
         ('.fc1', '.0'), ('.fc2', '.2')]
PARTS = dict(backbone='encoder', neck='regressor', head='decoder')


def test_the_method_in_lines_is_the_method():
    page = python_of('method.md')
    width = dict(embed_dims=page['C'], num_heads=page['HEADS'])
    block = dict(grid_size=8, depth=page['DEPTH'], layer_scale_init_value=1., **width)
    model = MODELS.build(dict(
        type='ContextAutoencoder',
        backbone=dict(type='CAEViT', arch=dict(num_layers=page['DEPTH'], **width), img_size=64,
                      patch_size=8, layer_scale_init_value=1.),
        neck=dict(type='LatentContextualRegressor', **block),
        head=dict(type='CAEDecoder', num_outputs=page['K'], **block),
        target_generator=dict(type='DiscreteVAE', num_codes=page['K'], hidden_dims=8, allow_random=True)))
    model.target_generator.get_targets = lambda images, masked: page['codes'].gather(1, masked)
    given = {}
    for name, value in model.named_parameters():
        if name.startswith('target_generator') or 'gamma' in name:
            continue
        torch.nn.init.normal_(value, std=0.05)
        for part, own in PARTS.items():
            name = name.replace(f'{part}.blocks', own).replace(f'{part}.norm', f'{own}_norm')
        for ours, theirs in NAMES:
            name = name.replace(ours, theirs)
        if '.qkv.' in name:
            for kind, part in zip('qkv', value.chunk(3), strict=True):
                given[name.replace('qkv', kind)] = part
        else:
            given[name] = value.flatten(1) if name == 'embed.weight' else value
    page['model'].load_state_dict(given | dict(pos=page['model'].pos))
    images = page['patches'].unflatten(1, (8, 8)).unflatten(3, (3, 8, 8)).permute(0, 3, 1, 4, 2, 5)
    out = model.forward_masked(images.reshape(-1, 3, 64, 64), page['mask'])
    losses = page['model'](page['patches'], page['mask'], page['codes'])
    torch.testing.assert_close(losses, (out.loss_reconstruct, out.loss_align))
    assert all(loss > 0.01 for loss in losses)
