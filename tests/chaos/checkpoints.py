"""Damaged and hostile checkpoints at every entry: the whole file's numbers, or a line that says why not."""
import hashlib
import json
import os
import shutil
import sys
from pathlib import Path

import mmpretrain
import safetensors.torch
import torch
from mmengine.config import Config
from mmpretrain.registry import MODELS
from PIL import Image

import cae_mm
from cae_mm.checkpoint.convert import convert_file
from cae_mm.checkpoint.files import read_checkpoint
from cae_mm.checkpoint.loader import load_backbone
from cae_mm.models import CAEViT

from . import damage, toys
from .children import Ended, run
from .kills import trained
from .pickles import MARK, hostile
from .report import Case

ENCODER = ['read', 'load_backbone', 'get_model', 'convert', 'knn', 'linear_probe', 'visualize']
# Files: their form, whether they carry a checksum of ours, and where they go.
FILES = {
    'training.pth': ('zip', True, [*ENCODER, 'reconstruct', 'resume', 'auto', 'load_from', 'mmpretrain']),
    'older.pth': ('zip', False, ['read', 'load_backbone', 'convert', 'resume', 'load_from']),
    'classifier.pth': ('zip', True, ['read', 'test', 'convert', 'mmpretrain']),
    'segmentor.pth': ('zip', True, ['read', 'test', 'demo_image']),
    'tokenizer.pth': ('zip', True, ['read', 'tokenizer']),
    'exported.pth': ('zip', True, ENCODER), 'exported.safetensors': ('safetensors', True, ENCODER),
    'module.pkl': ('zip', False, ['tokenizer']), 'legacy-tokenizer.pth': ('legacy', False, ['tokenizer']),
    'legacy.pth': ('legacy', False, ENCODER), 'foreign.safetensors': ('safetensors', False, ENCODER),
    'official.pth': ('zip', False, ENCODER), 'mmpretrain.pth': ('zip', False, ENCODER)}
CONFIG_OF = {'classifier.pth': 'classes', 'segmentor.pth': 'segments'}


def prepare(base: Path) -> dict:
    """The whole files, and what is in them."""
    def train(config, work, *options):
        options += tuple(toys.OPTIONS.get(config, ()))
        command = ['train.py', base / f'{config}.py', '--work-dir', work, '--cfg-options', *options]
        ended = run(lambda: toys.tool(*command), base)
        assert ended.code == 0, ended.err
        return base / work

    keep = 'default_hooks.checkpoint.max_keep_ckpts=-1'
    for config, name, last in (('pixels', 'training', 'iter_8'), ('classes', 'classifier', 'iter_8'),
                               ('segments', 'segmentor', 'iter_4'), ('tokenizer', 'tokenizer', 'iter_8')):
        shutil.copy(train(config, f'whole-{name}', keep) / f'{last}.pth', base / f'{name}.pth')
    plain = train('pixels', 'whole-older', keep, 'default_hooks.checkpoint.type=mmengine.CheckpointHook')
    shutil.copy(plain / 'iter_8.pth', base / 'older.pth')
    for name in ('exported.pth', 'exported.safetensors'):
        convert_file(base / 'training.pth', base / name, export='encoder')
    for name, target in (('official', 'official'), ('mmpretrain', 'mmpretrain'), ('foreign', 'timm')):
        convert_file(base / 'training.pth', base / f'{name}.pth', target, export='encoder')
    # As their authors save them: nothing but names and arrays.
    official, mmpretrain_, timm = (
        content_of(base / f'{name}.pth')['state_dict'] for name in ('official', 'mmpretrain', 'foreign'))
    torch.save(dict(model=official), base / 'official.pth')
    torch.save(dict(state_dict=mmpretrain_), base / 'mmpretrain.pth')
    safetensors.torch.save_file(timm, base / 'foreign.safetensors', {'format': 'pt'})
    torch.save(official, base / 'legacy.pth', _use_new_zipfile_serialization=False)
    tokenizer = torch.load(base / 'tokenizer.pth', weights_only=False)['state_dict']
    torch.save(tokenizer, base / 'legacy-tokenizer.pth', _use_new_zipfile_serialization=False)
    module = MODELS.build(Config.fromfile(base / 'tokenizer.py').model)
    module.load_state_dict(tokenizer)
    torch.save(module, base / 'module.pkl')
    return {name: content_of(base / name) for name in FILES}


def numbers_of(name: str, entry: str, base: Path):
    """What an entry gets of a whole file, found once."""
    folder = base / f'reference-{name}-{entry}-{os.getpid()}'
    if not folder.exists():
        folder.mkdir()
        ended = enter(entry, base, base / name, folder)
        assert ended.code == 0 and ended.value, f'{entry} of the whole {name}: {ended.err[-500:]}'
        (folder / 'numbers.json').write_text(json.dumps(ended.value))
    return json.loads((folder / 'numbers.json').read_text())


def content_of(path: Path) -> dict:
    """What is in a file that was made here, to be changed and written again."""
    if path.suffix == '.safetensors':
        with safetensors.safe_open(path, 'pt') as file:
            header = {key: value for key, value in (file.metadata() or {}).items() if key != 'format'}
        return dict(state_dict=safetensors.torch.load_file(path), header=header)
    content = torch.load(path, weights_only=False)
    if not isinstance(content, dict):
        return {}
    state = content.get('state_dict', content.get('model', content))
    return {**(content if state is not content else {}), 'state_dict': dict(state)}


def run_case(case: Case, base: Path, whole: dict) -> None:
    """Damage one file and take it to one entry."""
    rng = case.rng
    pairs = [(name, entry) for name, (*_, entries) in FILES.items() for entry in entries for _ in range(
        1 if entry in ENCODER else 4)]
    name, entry = pairs[rng.integers(len(pairs))]
    form, checked, _ = FILES[name]
    if rng.random() < 0.2:
        (kind, data), changes = hostile(rng, whole[name]), 'invalid'
    else:
        kind, changes, data = damage.make(rng, (base / name).read_bytes(), form, whole[name])
    case.kind, path, want = entry, case.folder / f'damaged-{name}', numbers_of(name, entry, base)
    path.write_bytes(data)
    (case.folder / 'chaos_decoy.py').write_text(f'open("{MARK}", "w")')
    before = {file.name for file in case.folder.iterdir()} | {'work'}
    ended = enter(entry, base, path, case.folder)
    case.harm(ended)
    left = {file.name for file in case.folder.iterdir() if not file.name.startswith('.tmp')} - before
    what, excuse = f'{kind} in {name}', undetectable(form, checked, entry, changes)
    case.check(MARK not in left, f'{what}: ran a command')
    if ended.code and excuse and 'not finite at iteration' in ended.complaint():
        case.count('undetectable', f'{excuse}, but the training diverged: {kind}')
    elif ended.code:
        case.count('refused', kind)
        problems = complaints(ended.complaint(), path.name, entry not in FUNCTIONS)
        problems += [f'exit code {ended.code}'] * (ended.code != 2) + [f'left {left}'] * bool(left)
        problems += ['did not fall back to the older file'] * (entry == 'auto')
        case.check(not problems, f'{what}: {", ".join(problems)}: {ended.err[-300:]!r}')
    elif ended.value == want:
        case.count('same numbers', kind)
    elif excuse:
        case.count('undetectable', f'{excuse}: {kind}')
    else:
        case.check(False, f'{what}: accepted with other numbers')


def undetectable(form: str, checked: bool, entry: str, changes: str) -> str:
    """Why nobody could tell, '' where somebody could."""
    if checked or changes in ('invalid', 'form'):
        return ''
    if changes == 'values' or changes == 'bytes' and form != 'zip':
        return 'no checksum in the file'
    if changes == 'shapes' and entry == 'read':
        return 'the reader alone knows no model'
    return ''


def complaints(err: str, name: str, tool: bool = True) -> list[str]:
    """What is wrong with the message of a refusal."""
    err = err.strip()
    return [problem for problem, wrong in {
        'more than one line': '\n' in err,
        f'does not name {name}': name not in err,
        'does not begin with cae_mm:': tool and not err.startswith('cae_mm: '),
        'advises to load unsafely': 'weights_only' in err or 'trust' in err,
        'names an object by its address': ' at 0x' in err,
        'too long': len(err) > 2000,
    }.items() if wrong]


# --- entries: each gives numbers that depend on all that it takes from the file -------------------

def digest(state: dict) -> str:
    """Of names, types, shapes and bytes of arrays; of others, how they print."""
    total = hashlib.sha256()
    for name in sorted(state, key=str):
        value = state[name]
        if torch.is_tensor(value):
            total.update(f'{name} {value.dtype} {tuple(value.shape)}'.encode())
            total.update(value.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        else:
            total.update(f'{name} {value!r:.1000}'.encode())
    return total.hexdigest()[:16]


def _encoder():
    return CAEViT(toys.ARCH, 16, 4)


def _load_backbone(base, path):
    backbone = _encoder()
    load_backbone(backbone, path)
    return digest(backbone.state_dict())


def _read(base, path):
    content = read_checkpoint(path)
    state = content.get('state_dict', content.get('model', content))
    return digest(state if isinstance(state, dict) else {'': state})


def _get_model(base, path):
    model = cae_mm.get_model('cae_vitt', path, arch=toys.ARCH, img_size=16, patch_size=4)
    return digest(model.state_dict())


def _mmpretrain(base, path):
    config = Config.fromfile(base / f'{config_of(path)}.py')
    return digest(mmpretrain.get_model(config, pretrained=str(path)).state_dict())


def _convert(base, path):
    toys.tool('convert.py', path, 'out.pth')
    return digest(torch.load('out.pth', weights_only=True)['state_dict'])


def _measure(tool):
    def measure(base, path):
        toys.tool(tool, base / 'pixels.py', path, '--data', base / 'data', '--out', 'out.json',
                  *(['--k', 1, 5] if tool == 'knn.py' else []), '--feature', 'avg')
        return json.loads(Path('out.json').read_text())
    return measure


def _draw(tool, pictures='data/val', config='pixels', *options):
    def draw(base, path):
        command = [tool, base / f'{config}.py', path, '--images', base / pictures, '--out', 'out.png']
        toys.tool(*command, *options)
        return hashlib.sha256(Image.open('out.png').tobytes()).hexdigest()[:16]
    return draw


def _test(base, path):
    config = config_of(path)
    options = ['--cfg-options', *toys.OPTIONS[config]] if config in toys.OPTIONS else []
    toys.tool('test.py', base / f'{config}.py', path, '--work-dir', 'work', '--out', 'out.json', *options)
    return json.loads(Path('out.json').read_text())


def _train(*arguments, config='pixels'):
    def train(base, path):
        toys.tool('train.py', base / f'{config}.py', '--work-dir', 'work', *(
            argument.format(path) for argument in arguments))
        last = trained(Path('work/iter_12.pth'))
        return digest(last['state_dict']), digest(last)
    return train


def _auto(base, path):
    Path('work').mkdir()
    shutil.copy(base / 'whole-training/iter_4.pth', 'work/iter_4.pth')
    shutil.copy(path, 'work/iter_8.pth')
    Path('work/last_checkpoint').write_text('work/iter_8.pth')
    return _train('--resume')(base, path)


FUNCTIONS = dict(read=_read, load_backbone=_load_backbone, get_model=_get_model, mmpretrain=_mmpretrain)
ENTRIES = FUNCTIONS | dict(
    convert=_convert, knn=_measure('knn.py'), linear_probe=_measure('linear_probe.py'), test=_test,
    auto=_auto, visualize=_draw('visualize.py'), reconstruct=_draw('reconstruct.py'),
    demo_image=_draw('demo_image.py', 'data/ade/images/validation/0.jpg', 'segments', '--cfg-options',
                     *toys.OPTIONS['segments']),
    resume=_train('--resume', '{}'), load_from=_train('--cfg-options', 'load_from={}'),
    tokenizer=_train('--cfg-options', 'tokenizer={}', config='codes'))


def config_of(path: Path) -> str:
    return CONFIG_OF.get(path.name.removeprefix('damaged-'), 'pixels')


def enter(entry: str, base: Path, path: Path, folder: Path) -> Ended:
    """Take a file to an entry, in a watched child."""
    def call():
        sys.path.insert(0, str(folder))  # for modules that a file names
        if entry not in FUNCTIONS:
            return ENTRIES[entry](base, path)
        try:
            return ENTRIES[entry](base, path)
        except (OSError, RuntimeError, ValueError) as error:
            print(error, file=sys.stderr)
            sys.exit(2)
    return run(call, folder)
