"""The README.md of an exported model, filled from its checkpoint and the log beside that."""
import re
import shlex
import sys
from contextlib import suppress
from pathlib import Path

from cae_mm.checkpoint.export import CROP, Exported
from cae_mm.checkpoint.files import read_weights
from cae_mm.checkpoint.sources import fetch
from cae_mm.visualization.curves import read_scalars

USE = {
    'timm': '''import timm
from timm.data import create_transform, resolve_model_data_config

model = timm.create_model('local-dir:{name}', pretrained=True).eval()    # or 'hf-hub:OWNER/{name}'
transform = create_transform(**resolve_model_data_config(model), is_training=False)
{what} = model(transform(image).unsqueeze(0))
maps = timm.create_model('local-dir:{name}', pretrained=True, features_only=True, out_indices={taps})''',
    'huggingface': '''from transformers import AutoBackbone, AutoImageProcessor, {kind}

processor = AutoImageProcessor.from_pretrained('{name}')    # or 'OWNER/{name}'
model = {kind}.from_pretrained('{name}')
output = model(**processor(image, return_tensors='pt')).{output}
maps = AutoBackbone.from_pretrained('{name}', out_indices={stages})''',
}
ABOUT = """{header}
# {name}

A vision transformer of {depth} blocks and {width} channels, {heads} heads, patches of {patch} pixels, images of {height} x {size_w},
{trained} with [CAE](https://arxiv.org/abs/2202.03026), the Context Autoencoder.

{found}

## Use

```python
{use}
```

With cae_mm: `cae_mm.get_model(pretrained='{name}')`, or `pretrained='hf-hub:OWNER/{name}'`, gives the encoder.

RGB pixels of 0 to 255 are normalised by the mean {mean} and the deviation {std}; the image's shorter side is resized to {resize} pixels, its
middle is cut out. That crop is the usual one, and not read from the checkpoint.

## Data

{data}

## Numbers

{numbers}

## Recipe

{recipe}

This folder was written by `{command}`.

## Licence

{licence}
"""


def model_card(model: Exported, checkpoint: str | Path, out: str | Path, to: str, found: list[str],
               licence: str | None = None) -> str:
    """The text of a model card for the Hugging Face Hub.

    Args:
        model (Exported): what is exported.
        checkpoint (str | Path): where it comes from; the log of its training is looked for beside it.
        out (str | Path): the folder.
        to (str): 'timm' or 'huggingface'.
        found (list[str]): what was found in the checkpoint.
        licence (str, optional): of the weights, by its identifier.
    """
    path = fetch(checkpoint)
    meta, encoder, name = read_weights(path)[1], model.encoder, Path(out).resolve().name
    height, width = model.facts['img_size']
    # Of paths of the machine the last name is enough.
    config = re.sub(r"'/(?:[^'\n]*/)?([^'/\n]+)'", r"'\1'", str(meta.get('cfg', '')).strip())
    images, [root] = meta.get('images') or {}, re.findall(r"^data_root = '(.*)'$", config, re.M) or ['']
    data = [f'{images["dataset"]:,} images'] if images.get('dataset') else []
    data += [f'`{root}`'] if root else []
    data += [f'classes: {", ".join(model.classes)}'] if model.classes else []
    tags = ['license: ' + licence] if licence else []
    depth, fc = encoder.num_layers, model.fc is not None
    taps = [round(depth * part) - 1 for part in (1 / 3, 1 / 2, 2 / 3, 1)]
    use = USE[to].format(
        name=name, what='logits' if fc else 'features', taps=tuple(taps), stages=[tap + 1 for tap in taps],
        kind='AutoModelForImageClassification' if fc else 'AutoModel',
        output='logits' if fc else 'last_hidden_state')
    return ABOUT.format(
        header='\n'.join(['---', 'library_name: ' + dict(timm='timm', huggingface='transformers')[to],
                          f'pipeline_tag: image-{"classification" if fc else "feature-extraction"}', *tags,
                          'tags: [cae, context-autoencoder]', '---']),
        name=name, depth=depth, width=encoder.embed_dims, heads=model.facts['num_heads'],
        patch=encoder.patch_size, height=height, size_w=width, trained='fine-tuned' if fc else 'pre-trained',
        found='\n'.join(f'- {line}' for line in found), use=use, mean=model.mean, std=model.std,
        resize=round(min(height, width) / CROP), data=', '.join(data) or 'The checkpoint does not say.',
        numbers=numbers(path, meta) or 'No log of the training lies beside the checkpoint.',
        recipe=f'{done(meta)} `python tools/train.py CONFIG` of cae_mm, with this config:\n\n<details>\n\n```python\n'
               f'{config}\n```\n\n</details>' if config else 'The checkpoint does not say.',
        command=shlex.join([f'tools/{Path(sys.argv[0]).name}', *(Path(word).name for word in sys.argv[1:])]),
        licence=licence or 'Not stated. Ask who trained it.')


def done(meta: dict) -> str:
    """How long it was trained, in a sentence."""
    parts = [f'{meta[key]:,} {unit}' for key, unit in (('epoch', 'epochs'), ('iter', 'iterations')) if meta.get(key)]
    seed = f', seed {meta["seed"]}' if 'seed' in meta else ''
    return f'{", ".join(parts)}{seed}.' if parts else ''


def numbers(path: Path, meta: dict) -> str:
    """A table of the last losses, and of what an evaluation of just this checkpoint gave."""
    records = []
    with suppress(FileNotFoundError):
        records = read_scalars(path.parent)
    step, last = meta.get('iter', -1), {}
    for record in records:
        if 'loss' in record and record.get('step', step + 1) <= step:
            last |= {key: value for key, value in record.items() if 'loss' in key}
        elif 'loss' not in record and record.get('step') in (meta.get('epoch') or step, step):
            last |= {key: value for key, value in record.items() if key not in ('step', 'time', 'data_time')}
    rows = [f'| {key} | {value:.4g} |' for key, value in last.items() if isinstance(value, (int, float))]
    return '\n'.join(['| | at the end of the training |', '|---|---|', *rows]) if rows else ''
