"""Wrong words, made by rules: refused in one line before anything is built; right ones are not."""
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
from mmengine.config import Config

from . import toys, words
from .children import run
from .pickles import MARK
from .report import Case

RULES = dict(typo=5, range=5, kind=4, listed=4, argument=8, right=3, make=2, script=2)  # and their shares
CONFIGS = ('pixels codes tokenizer classes segments pretrain/cae_vitb_300e_pixels '
           'cls/finetune_cae_vitb_100e det/mask_rcnn_cae_vitt_demo seg/upernet_cae_vitt_demo').split()
# Parts of configs that are in their places already, or take any key.
FREE = 'custom_imports auto_scale_lr norm_cfg backbone'.split()
# Last parts of keys, and values that none of them can have.
OUT_OF_RANGE = {
    'lr': '-1 nan inf', 'weight_decay': '-0.1 nan', 'eps': '-1', 'max_norm': '-3 nan', 'min_lr': '-1 100',
    'warmup_epochs': '-1 nan 100000', 'max_epochs': '0 -1 1.5 nan', 'max_iters': '0 -1 1.5',
    'power': '-1 nan', 'val_interval': '0 -2', 'batch_size': '0 -4 1.5', 'num_workers': '-1 0.5',
    'drop_path_rate': '1 -0.1 2 nan', 'layer_scale_init_value': '-1 nan', 'align_weight': '-1 nan inf',
    'accumulative_counts': '0 -1 1.5', 'interval': '0 -3 1.5', 'max_keep_ckpts': '-3 1.5',
    'flip_prob': '7 -1 nan', 'scale': '(0,0) (-1,1) (nan,1)', 'img_size': '0 -16', 'patch_size': '0 -4',
    'depth': '-1 1.5', 'num_layers': '0 -2 1.5', 'num_heads': '0 -1', 'embed_dims': '0 -24',
    'num_masked': '-1', 'seed': '-1 1.5', 'num_classes': '0 -1 1.5', 'num_codes': '0 -5',
    'layer_decay_rate': '0 -1 2', 'base_batch_size': '0 -1', 'dropout_ratio': '1 -0.5', 'momentum': '2 -1',
    'label_smooth_val': '1 -0.1', 'crop_size': '0 (0,0) (-8,8)', 'prob': '7 -1'}
OTHER_KINDS = {bool: 'maybe 7', int: 'abc a,b 1e 0x True', float: 'abc a,b 1e 0x True', dict: '5 abc'}
RIGHT = {
    'pixels': [
        'lr=1e-3', 'batch_size=2', 'max_epochs=1 param_scheduler.warmup_epochs=0', 'num_workers=1',
        'data_prefix=val', 'randomness.seed=5', 'optim_wrapper.optimizer.lr=2e-4', 'log_level=WARNING',
        'optim_wrapper.clip_grad.max_norm=1', 'optim_wrapper.clip_grad=None', 'model.align_weight=0',
        'model.backbone.drop_path_rate=0', 'default_hooks.checkpoint.interval=100', 'model.neck.depth=2',
        'default_hooks.checkpoint.max_keep_ckpts=-1', 'param_scheduler.min_lr=0',
        'param_scheduler.warmup_epochs=0.5', 'optim_wrapper.accumulative_counts=2',
        'optim_wrapper.optimizer.betas=(0.9,0.95)', 'optim_wrapper.optimizer.amsgrad=True',
        'train_dataloader.dataset.dataset.pipeline.1.flip_prob=1'],
    'classes': [
        'val_evaluator.topk=1', 'pretrained=none', 'train_cfg.val_interval=2', 'model.train_cfg=None',
        'optim_wrapper.paramwise_cfg.layer_decay_rate=1', 'val_dataloader.batch_size=3']}
# {m}: a file that must not come to be.
PAYLOADS = [
    "x'; touch {m}; echo '", '$(shell touch {m})', '$(touch {m})', '`touch {m}`', 'x"; touch {m}; "',
    'x; touch {m}', 'x | touch {m}', 'x && touch {m}', "/my/Bob's photos", 'a b', 'a"b', '$HOME', '$$HOME',
    '#x', 'a\\b', '*', '~', 'gr\u00fc\u00df', 'x\ttab', '$(eval x:=$(shell touch {m}))', "$'x'", '!x',
    '<x>', 'PATH[$(touch {m}; echo 0)]']
# Wrong arguments of each tool, with slashes between: {c} is a config, {k} a checkpoint, {d} a folder of
# data, {e} the first arguments of an evaluation, {v} those of a drawing.
ARGUMENTS = {
    'train.py': '{c} --resum / {c} --nothing / / nothing.py / {c} --launcher mpi / {c} --cfg-options / '
                '{d} / {k} / {c} --cfg-options x / {c} --data-root nothing / {c} --resume nothing.pth / '
                '{c} --amp=3 / {c} {k} / {c} --pretrained nothing.pth / {c} --work-dir {k} / '
                '{c} --new-parts head',
    'test.py': '{c} / {c} no.pth / {c} {d} / {c} {k} --out a.txt / {c} {k} --outt a.json / no.py {k}',
    'knn.py': '{c} {k} / {c} {k} --data nothing / {e} --k 0 / {e} --k -1 / {e} --k 1.5 / {e} --k 100000 / '
              '{e} --batch-size 0 / {e} --num-workers -1 / {e} --feature mean / {e} --seed x / '
              '{e} --out {d} / cae_vit {k} --data {d} / {c} no.pth --data {d}',
    'linear_probe.py': '{e} --penalties x / {e} --penalties -1 / {c} {k} --data {k} / '
                       '{e} --batch-size x / {c} {d} --data {d}',
    'convert.py': '{k} / {k} {k} / {k} a.txt / no.pth a.pth / {k} a.pth --to tim / '
                  '{k} a.pth --num-heads 0 / {k} a.pth --img-size 0 / {k} a.pth --img-size 1 2 3 / '
                  '{k} a.pth --positions resize / {k} a.pth --export all / {k} a.pth --img-size -16 / '
                  '{k} a.pth --img-size 17 / {d} a.pth',
    'visualize.py': '{c} {k} --images {d}/val / {c} {k} --images nothing --out a.png / {v} --num 0 / '
                    '{v} --num -1 / {v} --size 0 / {v} --size 3 / {v} --layer 9 / '
                    '{c} {k} --images {d}/val --out a.txt',
    'reconstruct.py': '{v} --num 0 / {c} {k} --images nothing --out a.png / {c} {k} / {v} --seed -1 / '
                      '{c} no.pth --images {d}/val --out a.png',
    'demo_image.py': '{v} / {c} {k} --images nothing --out a / {c} {k} --out a.png / {v} --score-thr 7',
    'demo/prepare_images.py': '/ nothing a / {d} a --side 0 / {d} a --side -3 / {d} a --max-images 0',
    'demo/demo.py': '--data nothing --out a / --views 0 0 --out a / --views 1 --out a / '
                    '--views -1 -1 --out a',
    'demo/demo_dense.py': '--nothing / --views x --out a',
    'demo/make_demo_data.py': '/ --nothing'}


def prepare(base: Path) -> dict:
    """The dotted keys of some configs with their values, and a checkpoint."""
    ended = run(lambda: toys.tool('train.py', base / 'pixels.py', '--work-dir', 'options-work'), base)
    assert ended.code == 0, ended.err
    found = {}
    for name in CONFIGS:
        path = base / f'{name}.py' if (base / f'{name}.py').exists() else toys.ROOT / f'configs/{name}.py'
        found[str(path)] = {key: value for key, value in flat(Config.fromfile(path).to_dict()) if not (
            key.split('.')[0] in FREE or key.split('.')[0].endswith('pipeline') or 'metainfo' in key)}
    return dict(keys=found, checkpoint=base / 'options-work/iter_12.pth')


def flat(node, prefix=''):
    """Dotted keys and values of a nested config, parts included."""
    for key, value in node.items() if isinstance(node, dict) else enumerate(node):
        yield f'{prefix}{key}', value
        if isinstance(value, dict) or isinstance(value, (list, tuple)) and any(isinstance(x, dict)
                                                                               for x in value):
            yield from flat(value, f'{prefix}{key}.')


def run_case(case: Case, base: Path, known: dict) -> None:
    """One wrong, or right, command."""
    shares = np.array(list(RULES.values()))
    case.kind = str(case.rng.choice(list(RULES), p=shares / shares.sum()))
    if case.kind in ('make', 'script'):
        return inject(case)
    if case.kind == 'right':
        config = str(case.rng.choice(list(RIGHT)))
        tool, named = 'train.py', []
        arguments = [base / f'{config}.py', '--cfg-options', *str(case.rng.choice(RIGHT[config])).split()]
    elif case.kind == 'argument':
        tool, named = str(case.rng.choice(list(ARGUMENTS))), []
        text = str(case.rng.choice(ARGUMENTS[tool].split('/ ')))
        text = text.replace('{e}', '{c} {k} --data {d}').replace(
            '{v}', '{c} {k} --images {d}/val --out a.png')
        arguments = text.format(c=base / 'pixels.py', k=known['checkpoint'], d=base / 'data').split()
    elif case.kind == 'listed':
        config = str(case.rng.choice(list(words.WRONG)))
        tool, option = 'train.py', str(case.rng.choice(words.WRONG[config]))
        named = [(option.partition('=')[0].split('.')[0],)]
        arguments = [toys.ROOT / config, '--work-dir', 'work', '--cfg-options', option]
    else:
        config = str(case.rng.choice(list(known['keys'])))
        option, named = wrong(case.rng, case.kind, known['keys'][config])
        tool, arguments = 'train.py', [config, '--work-dir', 'work', '--cfg-options', option]
    ended = run(lambda: toys.tool(tool, *arguments), case.folder, 60 if case.kind == 'right' else 20)
    case.harm(ended)
    shown = f'{tool} {" ".join(map(str, arguments))}'.replace(f'{base}/', '').replace(f'{toys.ROOT}/', '')
    if case.kind == 'right':
        return case.check(ended.code == 0, f'{shown}: exit code {ended.code}: {ended.err[-300:]!r}')
    lines = ended.complaint().splitlines()
    message = next((line for line in lines if line.startswith('cae_mm: ') or ': error: ' in line), '')
    left = [path.name for path in case.folder.iterdir() if not path.name.startswith('.tmp')]
    problems = [f'exit code {ended.code}'] * (ended.code != 2) + [f'left {left}'] * bool(left)
    usage = message and lines[0].startswith('usage: ')  # argparse's own
    problems += ['not one line cae_mm: ...'] * (not message or len(lines) > 1 and not usage)
    problems += [f'does not name {" or ".join(some)}' for some in named if not any(word in message
                                                                                   for word in some)]
    case.check(not problems, f'{shown}: {", ".join(problems)}: {ended.err[-250:]!r}')


def wrong(rng, kind: str, keys: dict) -> tuple[str, list[tuple]]:
    """A setting that cannot be, and what its message must name: of each tuple one."""
    fits = {'typo': lambda last, value: not last.isdigit(),
            'range': lambda last, value: last in OUT_OF_RANGE and value is not None,
            'kind': lambda last, value: type(value) in OTHER_KINDS and not last.isdigit()}[kind]
    key = str(rng.choice([key for key, value in keys.items() if fits(key.split('.')[-1], value)]))
    *front, last = key.split('.')
    if kind == 'typo':
        slip = misspell(rng, last, {other.split('.')[-1] for other in keys})
        value = keys[key] if isinstance(keys[key], (bool, int, float, str)) and str(keys[key]) else 1
        return f'{".".join([*front, slip])}={value}', [(slip,)]
    value = str(rng.choice((OUT_OF_RANGE[last]
                            if kind == 'range' else OTHER_KINDS[type(keys[key])]).split()))
    return f'{key}={value}', [(last,), (value, value.strip('()').split(',')[0])]


def misspell(rng, word: str, known: set[str]) -> str:
    """The word with a slip of a finger, which is no other word."""
    while True:
        place = int(rng.integers(len(word)))
        before, letter, behind = word[:place], word[place], word[place + 1:]
        slips = [before + behind, before + 2 * letter + behind, before + behind[:1] + letter + behind[1:],
                 word.upper(), word + 's', before + 'xyzq'[rng.integers(4)] + letter + behind]
        slip = slips[rng.integers(len(slips))]
        if slip and slip not in known and not slip.isdigit():
            return slip


def inject(case: Case) -> None:
    """Give make, or a script, what a shell would run; a stand-in of Python notes what comes through."""
    mark, rng, folder = case.folder / MARK, case.rng, case.folder
    payload = str(rng.choice(PAYLOADS)).replace('{m}', str(mark))
    stub = folder / 'env/bin/python'
    stub.parent.mkdir(parents=True)
    stub.write_text(f'#!/bin/bash\nprintf "%s\\0" "$@" > {folder}/argv\n')
    stub.chmod(0o755)
    shutil.copy(stub, stub.with_name('srun'))
    (folder / 'env/installed').touch()
    environment = dict(os.environ, PYTHON=str(stub), PATH=f'{stub.parent}:{os.environ["PATH"]}')
    if case.kind == 'make':
        name, goal = str(rng.choice('DATA OUT CORES TORCH FORCE'.split())), str(rng.choice(['demo',
                                                                                            'demo-dense']))
        command = ['make', '-s', '-C', str(toys.ROOT), goal, f'ENV={folder}/env', f'{name}={payload}']
        through, number = name == 'OUT' or (name, goal) == ('DATA', 'demo'), name in ('CORES', 'TORCH')
    else:
        script, *arguments = str(rng.choice(['dist_train.sh c.py 1', 'dist_test.sh c.py k.pth 1',
                                             'slurm_train.sh p j c w',
                                             'dist_run.sh tools/knn.py 1'])).split()
        place = int(rng.integers(len(arguments) + 2))
        through = place <= len(arguments)
        number = through and [*arguments, ''][place] == '1'
        if place < len(arguments):
            arguments[place] = payload
        elif through:
            arguments += ['--work-dir', payload]
        else:
            slurm, others = 'GPUS GPUS_PER_NODE CPUS_PER_TASK', 'NNODES NODE_RANK PORT MASTER_ADDR'
            names = slurm if script[0] == 's' else others
            environment[str(rng.choice(names.split()))] = payload
        command = ['bash', str(toys.ROOT / 'tools' / script), *arguments]
    ended = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=20)
    shown = f'{json.dumps(command[1:])} with {payload!r}: exit code {ended.returncode}'
    case.check(not mark.exists() and not (toys.ROOT / MARK).exists(), f'{shown}, and it ran a command')
    argv = (folder / 'argv').read_text().split('\0') if (folder / 'argv').exists() else []
    if number:
        case.check(ended.returncode == 2, f'{shown}: {ended.stderr[-200:]!r}')
    elif through and argv:
        whole = any(argument == payload or argument.endswith(f'={payload}') for argument in argv)
        case.check(whole, f'{shown}: came through as {argv}')
    elif through:
        case.check(ended.returncode == 2, f'{shown}: {ended.stderr[-200:]!r}')
