"""Wrong words on the command line, made by rules: refused in one line before anything is built; right ones are not."""
import json
import os
import shutil
import subprocess
from pathlib import Path

from mmengine.config import Config

from . import toys
from .children import run
from .pickles import MARK
from .report import Case

CONFIGS = ['pixels', 'codes', 'tokenizer', 'classes', 'segments', 'pretrain/cae_vitb_300e_pixels', 'cls/finetune_cae_vitb_100e',
           'det/mask_rcnn_cae_vitt_demo', 'seg/upernet_cae_vitt_demo']
# Last parts of keys, and values that none of them can have.
OUT_OF_RANGE = {
    'lr': '-1 nan inf', 'weight_decay': '-0.1 nan', 'eps': '-1', 'max_norm': '-3 nan', 'warmup_epochs': '-1 nan 100000',
    'min_lr': '-1 100', 'max_epochs': '0 -1 1.5 nan', 'max_iters': '0 -1 1.5', 'val_interval': '0 -2',
    'batch_size': '0 -4 1.5', 'num_workers': '-1 0.5', 'drop_path_rate': '1 -0.1 2 nan', 'layer_scale_init_value': '-1 nan',
    'align_weight': '-1 nan inf', 'accumulative_counts': '0 -1 1.5', 'interval': '0 -3 1.5', 'max_keep_ckpts': '-3 1.5',
    'flip_prob': '7 -1 nan', 'scale': '(0,0) (-1,1) (nan,1)', 'img_size': '0 -16', 'patch_size': '0 -4', 'depth': '-1 1.5',
    'num_layers': '0 -2 1.5', 'num_heads': '0 -1', 'embed_dims': '0 -24', 'num_masked': '-1', 'seed': '-1 1.5',
    'num_classes': '0 -1 1.5', 'layer_decay_rate': '0 -1 2', 'num_codes': '0 -5', 'base_batch_size': '0 -1', 'power': '-1 nan',
    'dropout_ratio': '1 -0.5', 'label_smooth_val': '1 -0.1', 'crop_size': '0 (0,0) (-8,8)', 'prob': '7 -1', 'momentum': '2 -1'}
SHORT = ['lrr=1', 'learning_rate=1', 'tokenizers=a.pth', 'batchsize=4', 'epochs=5', 'max_epoch=3', 'seed=3', 'work_dirs=a',
         'data_rot=a', 'optim_wraper.optimizer.lr=1', 'randomnes.seed=3', 'num_worker=1', 'pretraned=a', 'resumee=True']
RIGHT = {
    'pixels': ['lr=1e-3', 'batch_size=2', 'max_epochs=1 param_scheduler.warmup_epochs=0', 'num_workers=1', 'randomness.seed=5',
               'optim_wrapper.optimizer.lr=2e-4', 'optim_wrapper.clip_grad.max_norm=1', 'optim_wrapper.clip_grad=None',
               'model.align_weight=0', 'model.backbone.drop_path_rate=0', 'default_hooks.checkpoint.interval=100',
               'default_hooks.checkpoint.max_keep_ckpts=-1', 'param_scheduler.min_lr=0', 'param_scheduler.warmup_epochs=0.5',
               'optim_wrapper.optimizer.betas=(0.9,0.95)', 'optim_wrapper.accumulative_counts=2', 'log_level=WARNING',
               'train_dataloader.dataset.dataset.pipeline.1.flip_prob=1', 'data_prefix=val', 'model.neck.depth=2',
               'optim_wrapper.optimizer.type=SGD optim_wrapper.optimizer._delete_=True optim_wrapper.optimizer.lr=0.1'],
    'classes': ['val_evaluator.topk=1', 'pretrained=none', 'train_cfg.val_interval=2',
                'optim_wrapper.paramwise_cfg.layer_decay_rate=1', 'val_dataloader.batch_size=3', 'model.train_cfg=None']}
PAYLOADS = ["x'; touch {m}; echo '", '$(shell touch {m})', '$(touch {m})', '`touch {m}`', 'x"; touch {m}; "', 'x; touch {m}',
            'x | touch {m}', 'x && touch {m}', "/my/Bob's photos", 'a b', 'a"b', '$HOME', '$$HOME', '${{m}}', '#x', 'a\\b', '*',
            '~', 'gr\u00fc\u00df', 'x\ttab', '$(eval x:=$(shell touch {m}))', "$'x'", '!x', '<x>', 'PATH[$(touch {m}; echo 0)]']
ARGUMENTS = {  # with {c} for a config, {k} for a checkpoint, {d} for data
    'train.py': ['{c} --resum', '{c} --nothing', '', 'nothing.py', '{c} --launcher mpi', '{c} --cfg-options', '{c} --cfg-options x',
                 '{c} --data-root nothing', '{c} --resume nothing.pth', '{c} --pretrained nothing.pth', '{d} ', '{k}',
                 '{c} --work-dir {k}', '{c} --new-parts head', '{c} --amp=3', '{c} {k}'],
    'test.py': ['{c}', '{c} nothing.pth', '{c} {d}', '{c} {k} --out a.txt', '{c} {k} --outt a.json', 'nothing.py {k}'],
    'knn.py': ['{c} {k}', '{c} {k} --data nothing', '{c} {k} --data {d} --k 0', '{c} {k} --data {d} --k -1',
               '{c} {k} --data {d} --k 1.5', '{c} {k} --data {d} --k 100000', '{c} {k} --data {d} --batch-size 0',
               '{c} {k} --data {d} --num-workers -1', '{c} {k} --data {d} --feature mean', 'cae_vit {k} --data {d}',
               '{c} nothing.pth --data {d}', '{c} {k} --data {d} --seed x', '{c} {k} --data {d} --out {d}'],
    'linear_probe.py': ['{c} {k} --data {d} --penalties x', '{c} {k} --data {d} --penalties -1', '{c} {k} --data {k}',
                        '{c} {k} --data {d} --batch-size x', '{c} {d} --data {d}'],
    'convert.py': ['{k}', '{k} {k}', '{k} a.txt', 'nothing.pth a.pth', '{k} a.pth --to tim', '{k} a.pth --num-heads 0',
                   '{k} a.pth --img-size 0', '{k} a.pth --img-size 1 2 3', '{k} a.pth --positions resize', '{d} a.pth',
                   '{k} a.pth --export all', '{k} a.pth --img-size -16', '{k} a.pth --img-size 17', '{k} nowhere/x/'],
    'visualize.py': ['{c} {k} --images {d}/val', '{c} {k} --images nothing --out a.png', '{c} {k} --images {d}/val --out a.txt',
                     '{c} {k} --images {d}/val --out a.png --num 0', '{c} {k} --images {d}/val --out a.png --num -1',
                     '{c} {k} --images {d}/val --out a.png --size 0', '{c} {k} --images {d}/val --out a.png --layer 9',
                     '{c} {k} --images {d}/val --out a.png --size 3'],
    'reconstruct.py': ['{c} {k} --images {d}/val --out a.png --num 0', '{c} {k} --images nothing --out a.png', '{c} {k}',
                       '{c} nothing.pth --images {d}/val --out a.png', '{c} {k} --images {d}/val --out a.png --seed -1'],
    'demo_image.py': ['{c} {k} --images {d}/val --out a.png', '{c} {k} --images nothing --out a', '{c} {k} --out a.png',
                      '{c} {k} --images {d}/val --out a --score-thr 7', '{c} {k} --images {d}/val --out a --score-thr x'],
    'demo/prepare_images.py': ['', 'nothing a', '{d} a --side 0', '{d} a --side -3', '{d} a --max-images 0', '{d} a --side x'],
    'demo/demo.py': ['--data nothing --out a', '--views 0 0 --out a', '--views 1 --out a', '--nothing', '--views -1 -1 --out a'],
    'demo/demo_dense.py': ['--nothing', '--views x --out a'], 'demo/make_demo_data.py': ['', '--nothing']}


def prepare(base: Path) -> dict:
    """The dotted keys of some configs with their values, and a checkpoint."""
    ended = run(lambda: toys.tool('train.py', base / 'pixels.py', '--work-dir', 'options-work'), base)
    assert ended.code == 0, ended.err
    found = {}
    for name in CONFIGS:
        path = base / f'{name}.py' if (base / f'{name}.py').exists() else toys.ROOT / f'configs/{name}.py'
        settings = Config.fromfile(path).to_dict()
        found[str(path)] = {key: value for key, value in flat(settings) if key.split('.')[0] not in (
            'custom_imports', 'train_pipeline', 'val_pipeline', 'test_pipeline', 'pipeline', 'auto_scale_lr', 'norm_cfg', 'backbone')
            and 'metainfo' not in key and 'collate_fn' not in key}
    return dict(keys=found, checkpoint=str(base / 'options-work/iter_12.pth'))


def flat(node, prefix=''):
    """Dotted keys and values of a nested config, parts included."""
    for key, value in node.items() if isinstance(node, dict) else enumerate(node):
        yield f'{prefix}{key}', value
        if isinstance(value, dict) or isinstance(value, (list, tuple)) and any(isinstance(x, dict) for x in value):
            yield from flat(value, f'{prefix}{key}.')


def run_case(case: Case, base: Path, known: dict) -> None:
    """One wrong, or right, command."""
    rules = dict(typo=5, range=5, kind=4, short=2, argument=8, right=3, make=2, script=2)
    case.kind = str(case.rng.choice(list(rules), p=[share / sum(rules.values()) for share in rules.values()]))
    case.count(case.kind)
    if case.kind in ('make', 'script'):
        return inject(case, base)
    if case.kind == 'right':
        config = str(case.rng.choice(list(RIGHT)))
        options = str(case.rng.choice(RIGHT[config])).split()
        ended = run(lambda: toys.tool('train.py', base / f'{config}.py', '--work-dir', 'work', '--cfg-options', *options),
                    case.folder, 60)
        case.harm(ended)
        case.check(ended.code == 0, f'{config} {options}: exit code {ended.code}: {ended.err[-300:]!r}')
        return
    tool, arguments, words = wrong(case.rng, case.kind, base, known)
    ended = run(lambda: toys.tool(tool, *arguments), case.folder)
    case.harm(ended)
    problems = [f'exit code {ended.code}'] if ended.code != 2 else []
    lines = ended.err.strip().splitlines()
    message = next((line for line in lines if line.startswith('cae_mm: ') or ': error: ' in line), '')
    if not message or len(lines) > 1 and not lines[0].startswith('usage: '):
        problems.append('not one line cae_mm: ...')
    for options in words:
        if not any(word in message for word in options):
            problems.append(f'does not name {" or ".join(options)}')
    left = [path.name for path in case.folder.iterdir() if not path.name.startswith('.tmp')]
    problems += [f'left {left}'] * bool(left)
    shown = ' '.join(map(str, arguments)).replace(str(base), '').replace(str(toys.ROOT), '')
    case.check(not problems, f'{tool} {shown}: {", ".join(problems)}: {ended.err[-250:]!r}')


def wrong(rng, kind: str, base: Path, known: dict):
    """A tool, its arguments, and what its message must name: of each tuple one."""
    if kind == 'argument':
        tool = str(rng.choice(list(ARGUMENTS)))
        text = str(rng.choice(ARGUMENTS[tool]))
        return tool, text.format(c=base / 'pixels.py', k=known['checkpoint'], d=base / 'data').split(), []
    config = str(rng.choice(list(known['keys'])))
    keys = known['keys'][config]
    if kind == 'short':
        option = str(rng.choice(SHORT))
        return 'train.py', [config, '--work-dir', 'work', '--cfg-options', option], [(option.split('.')[0].split('=')[0],)]
    if kind == 'typo':
        key = str(rng.choice([key for key in keys if not key.split('.')[-1].isdigit()]))
        *front, last = key.split('.')
        misspelt = misspell(rng, last, {other.split('.')[-1] for other in keys} | {'_delete_'})
        option, words = f'{".".join([*front, misspelt])}={short(keys[key])}', [(misspelt,)]
    elif kind == 'range':
        key = str(rng.choice([key for key in keys if key.split('.')[-1] in OUT_OF_RANGE and keys[key] is not None]))
        value = str(rng.choice(OUT_OF_RANGE[key.split('.')[-1]].split()))
        option, words = f'{key}={value}', [(key.split('.')[-1],), (value, value.strip('()').split(',')[0])]
    else:
        key = str(rng.choice([key for key, value in keys.items() if type(value) in (bool, int, float, dict)]))
        value = str(rng.choice({bool: ['maybe', '7'], dict: ['5', 'abc']}.get(type(keys[key]), ['abc', 'a,b', '1e', '0x', 'True'])))
        option, words = f'{key}={value}', [(key.split('.')[-1],), (value.split(',')[0],)]
    return 'train.py', [config, '--work-dir', 'work', '--cfg-options', option], words


def short(value) -> str:
    """A value as the command line takes it."""
    return str(value) if isinstance(value, (bool, int, float, str)) and str(value) else '1'


def misspell(rng, word: str, known: set[str]) -> str:
    """The word with a slip of a finger, which is no other word."""
    while True:
        place = int(rng.integers(len(word)))
        slips = [word[:place] + word[place + 1:], word[:place] + word[place] + word[place:],
                 word[:place] + word[place:][1:2] + word[place:][:1] + word[place + 2:], word.upper(), word + 's',
                 word[:place] + 'xyzq'[rng.integers(4)] + word[place:]]
        slip = slips[rng.integers(len(slips))]
        if slip and slip not in known and not slip.isdigit():
            return slip


def inject(case: Case, base: Path) -> None:
    """Give make, or a script, what a shell would run; a stand-in of Python writes down what comes through."""
    mark, rng = case.folder / MARK, case.rng
    payload = str(rng.choice(PAYLOADS)).replace('{{m}}', '{m}').replace('{m}', str(mark))
    stub = case.folder / 'env/bin/python'
    stub.parent.mkdir(parents=True)
    stub.write_text(f'#!/bin/bash\nprintf "%s\\0" "$@" > {case.folder}/argv\n')
    stub.chmod(0o755)
    shutil.copy(stub, stub.with_name('srun'))
    (case.folder / 'env/installed').touch()
    environment = dict(os.environ, PYTHON=str(stub), PATH=f'{stub.parent}:{os.environ["PATH"]}')
    refused = False
    if case.kind == 'make':
        name = str(rng.choice(['DATA', 'OUT', 'CORES', 'TORCH', 'FORCE']))
        command = ['make', '-s', '-C', str(toys.ROOT), str(rng.choice(['demo', 'demo-dense'])), f'ENV={case.folder}/env',
                   f'{name}={payload}']
        through = name == 'OUT' or name == 'DATA' and command[4] == 'demo'
    else:
        script = str(rng.choice(['dist_train.sh', 'dist_test.sh', 'dist_run.sh', 'slurm_train.sh']))
        arguments = dict(dist_train=['c.py', '1'], dist_test=['c.py', 'k.pth', '1'], dist_run=['tools/knn.py', '1'],
                         slurm_train=['part', 'job', 'c.py', 'work'])[script[:-3]]
        place = int(rng.integers(len(arguments) + 2))
        if place < len(arguments):
            refused = arguments[place] == '1'
            arguments[place] = payload
        elif place == len(arguments):
            arguments += ['--work-dir', payload]
        else:
            name = str(rng.choice(['GPUS', 'GPUS_PER_NODE', 'CPUS_PER_TASK'] if script[0] == 's' else [
                'NNODES', 'NODE_RANK', 'PORT', 'MASTER_ADDR']))
            environment[name] = payload
        command, through = ['bash', str(toys.ROOT / 'tools' / script), *arguments], place <= len(arguments) and not refused
    ended = subprocess.run(command, env=environment, cwd=case.folder, capture_output=True, text=True, timeout=20)
    shown = json.dumps(command[4:] if case.kind == 'make' else command[1:] + [name] * (place > len(arguments)))
    case.check(not mark.exists() and not (toys.ROOT / MARK).exists(), f'{shown} ran a command')
    argv = (case.folder / 'argv').read_text().split('\0') if (case.folder / 'argv').exists() else []
    if through and not argv:
        case.check(ended.returncode not in (0, 1, 127), f'{shown} did nothing: {ended.stderr[-200:]!r}')
    elif through:
        case.check(any(argument in (payload, f'--data={payload}', f'--out={payload}', f'--job-name={payload}')
                       for argument in argv), f'{shown}: came through as {argv}')
    elif refused:
        case.check(ended.returncode == 2, f'{shown}: exit code {ended.returncode}: {ended.stderr[-200:]!r}')
