"""Weights for timm's vision transformers: timm's own names, the original authors' and transformers'."""
import contextlib
import io
import re
import sys
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import timm
import torch
from mmengine.logging import print_log
from mmengine.registry import WEIGHT_INITIALIZERS
from timm.models import get_pretrained_cfg
from torch import Tensor, nn

from cae_mm.checkpoint.files import FileError, read_weights
from cae_mm.checkpoint.loader import compare
from cae_mm.checkpoint.names import some
from cae_mm.checkpoint.sources import fetch

# transformers' names of ViT, ViT-MAE, BEiT, DINOv2, DINOv3, CLIP and SigLIP, in files and in modules,
# behind what stands before "embeddings.". Each rule is applied once, in this order.
TRANSFORMERS = [(re.compile(theirs), ours) for theirs, ours in (
    (r'embeddings\.patch_embeddings?\.(projection\.)?', 'patch_embed.proj.'),
    (r'embeddings\.(cls_token|class_embedding)', 'cls_token'),
    (r'embeddings\.position_embeddings?(\.weight)?', 'pos_embed'),
    (r'embeddings\.', ''),
    (r'(encoder\.|model\.)?layers?\.(\d+)\.', r'blocks.\2.'),
    (r'(attention\.attention|attention|self_attn)\.(q|k|v)(uery|ey|alue|_proj)\.', r'attn.\2_proj.'),
    (r'(attention\.output\.dense|attention\.o_proj|self_attn\.out_proj)\.', 'attn.proj.'),
    (r'^(encoder\.)?relative_position_bias\.', 'rel_pos_bias.'),
    (r'(attention\.)*relative_position_bias\.', 'attn.'),
    (r'(layernorm_before|layer_norm1)\.', 'norm1.'),
    (r'(layernorm_after|layer_norm2)\.', 'norm2.'),
    (r'(layer_scale|lambda_)(\d)(\.lambda1)?', r'ls\2.gamma'),
    (r'mlp\.gate_proj\.', 'mlp.fc1_g.'),
    (r'(intermediate\.dense|mlp\.up_proj|mlp\.weights_in)\.', 'mlp.fc1.'),
    (r'((?<!attention\.)output\.dense|mlp\.down_proj|mlp\.weights_out)\.', 'mlp.fc2.'),
    (r'^pre_layrnorm\.', 'norm_pre.'),
    (r'^pooler\.layernorm\.', 'fc_norm.'),
    (r'^(post_layernorm|layernorm)\.', 'norm.'),
    (r'^head\.probe', 'attn_pool.latent'),
    (r'^head\.attention\.in_proj_', 'attn_pool.qkv.'),
    (r'^head\.attention\.out_proj\.', 'attn_pool.proj.'),
    (r'^head\.layernorm\.', 'attn_pool.norm.'),
    (r'^head\.mlp\.', 'attn_pool.mlp.'),
)]
# What belongs to an encoder by its name. All else, such as heads, decoders and text towers, is left out.
ENCODER = re.compile(r'(blocks|norm|norm_pre|fc_norm|patch_embed|attn_pool|rel_pos_bias|neck)\..*|'
                     r'(pos_embed|cls_token|reg_token|dist_token)')


def load_timm(backbone: nn.Module, path: str | Path, prefix: str = 'backbone.',
              trained_with: dict | None = None) -> None:
    """Fill a whole ``TimmViT`` from a checkpoint, or raise.

    Its names may be those of timm, of the model's authors, which timm's own filter functions translate, of
    transformers, or of a training here. Positions and patch embeddings of another size are resampled by
    timm's rules. ``backbone.trained_with`` says then that pixels were normalised as timm says, or as told.

    Args:
        backbone (nn.Module): a ``TimmViT``.
        path (str | Path): checkpoint file, see ``fetch``.
        prefix (str): of the backbone in a checkpoint of a training here.
        trained_with (dict, optional): mean, std and channel_order, see ``check_pixels``.

    Raises:
        FileNotFoundError, FileError: see ``read_weights``.
        RuntimeError: when the file holds another model, or not all of it; says what.
    """
    path, report = fetch(path), []
    state = dict(read_weights(path)[0])
    try:
        given = to_timm(state, backbone.vit, prefix, report)
    except FileError:
        raise
    except (ValueError, LookupError, RuntimeError, AttributeError, AssertionError, TypeError) as error:
        raise RuntimeError(f'{path} does not hold {backbone.name}: {error}') from error
    if problems := compare(backbone.vit.state_dict(), given):
        raise RuntimeError(f'{path} does not hold {backbone.name}. {problems}. Take the name in timm of '
                           "what it holds: timm.list_models('*vit*') lists many")
    backbone.vit.load_state_dict(given)
    report += note_pixels(backbone, state)
    mean, std = ([float(f'{255 * x:.6g}') for x in numbers] for numbers in (backbone.mean, backbone.std))
    backbone.trained_with = dict(mean=mean, std=std, channel_order='RGB') | (trained_with or {})
    print_log(f'loaded all of {backbone.name}, {len(given)} arrays, from {path}'
              + ''.join(f'; {line}' for line in report), 'current')


def note_pixels(backbone: nn.Module, state: Iterable[str]) -> list[str]:
    """What to say where weights of one model were trained with pixels normalised in several ways.

    Those of MAE, whose decoder tells them, set the backbone's ``mean`` and ``std``.
    """
    base, _, tag = backbone.name.partition('.')
    others = {other: (cfg.mean, cfg.std) for other in timm.list_pretrained(f'{base}.*')
              for cfg in [get_pretrained_cfg(other)]
              if (cfg.mean, cfg.std) != (backbone.mean, backbone.std)}
    if f'{base}.mae' in others and 'decoder_embed.weight' in state:
        backbone.mean, backbone.std = others[f'{base}.mae']
        return [f'pixels are those of MAE, for which {base}.mae is the name']
    return [f'pixels are those of {base}.{get_pretrained_cfg(base).tag}; if the weights are of one of '
            f'{some(others, 8)}, which have others, say so by that name'] if others and not tag else []


def to_timm(state: dict[str, Tensor], vit: nn.Module, prefix: str = '',
            report: list[str] | None = None) -> dict[str, Tensor]:
    """The arrays of a checkpoint, see ``load_timm``, by the names and sizes of a model of timm."""
    report = [] if report is None else report
    own = vit.state_dict()
    for place in (f'{prefix}vit.', 'vit.'):
        if f'{place}blocks.0.norm1.weight' in state:
            state = {name.removeprefix(place): value for name, value in state.items()
                     if name.startswith(place)}
    state = from_transformers(state, own)
    if 'ls1.gamma' in ''.join(own) and 'blocks.0.gamma_1' in state:  # DeiT III's authors
        state = {re.sub(r'gamma_(\d)$', r'ls\1.gamma', name): value for name, value in state.items()}
    if (table := state.pop('rel_pos_bias.relative_position_bias_table', None)) is not None:
        if 'rel_pos_bias.relative_position_bias_table' in own:
            state['rel_pos_bias.relative_position_bias_table'] = table
        else:  # BEiT pre-trains with one table for all blocks
            state |= {name: table for name in own if name.endswith('.relative_position_bias_table')}
    check_biases(state, own)
    size = {name: value.shape for name, value in state.items()}
    module = sys.modules[type(vit).__module__]
    filter_names = getattr(module, 'checkpoint_filter_fn', lambda state, vit: state)
    with contextlib.redirect_stdout(io.StringIO()):
        given = filter_names(state, vit)
    for ours, theirs in (('norm', 'fc_norm'), ('fc_norm', 'norm')):
        moved = {name.replace(theirs, ours, 1): name for name in given if name.startswith(f'{theirs}.')}
        if moved and all(name in own and name not in given and there not in own
                         for name, there in moved.items()):
            given = {**given, **{name: given[there] for name, there in moved.items()}}
            given = {name: value for name, value in given.items() if name not in moved.values()}
            report.append(f'its {theirs} is the {ours} of this model')
    left = [name for name in given if name not in own and not ENCODER.fullmatch(name)]
    if left:
        report.append(f'left out {len(left)} arrays that are no part of the encoder: {some(left, 3)}')
    report += [f'{name} resized from {tuple(size[name])} to {tuple(given[name].shape)}' for name in (
        'patch_embed.proj.weight', 'pos_embed') if name in size and name in given
        and size[name] != given[name].shape]
    return {name: value for name, value in given.items() if name not in left}


def from_transformers(state: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names of timm, or of the authors, in the place of those of transformers; others stay as they are."""
    found = [match for match in (re.fullmatch(r'(.*?)embeddings\.patch_embeddings?\.(projection\.)?weight',
                                              name) for name in state) if match]
    if len(found) != 1:
        return state
    prefix, result = found[0][1], {}
    for name, value in state.items():
        if not name.startswith(prefix):
            continue
        name = name.removeprefix(prefix)
        for theirs, ours in TRANSFORMERS:
            name = theirs.sub(ours, name, count=1)
        result[name] = value
    result.pop('mask_token', None)
    for name in ('cls_token', 'pos_embed'):
        if name in result:
            result[name] = result[name].reshape(1, -1, result[name].shape[-1])
    if 'register_tokens' in result:
        if 'pos_embed' in result:  # DINOv2, which timm's filter knows by this name
            result['mask_token'] = result['cls_token']
        else:
            result['reg_token'] = result.pop('register_tokens')
    if 'blocks.0.mlp.fc1_g.weight' in result:
        result = {re.sub(r'mlp\.fc1\.', 'mlp.fc1_x.', name): value for name, value in result.items()}
    if 'blocks.0.gamma_1' in own:
        result = {re.sub(r'ls(\d)\.gamma$', r'gamma_\1', name): value for name, value in result.items()}
    return joined(result, own)


def joined(state: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """Queries, keys and values in one array or in several, as the model has them."""
    result = {name: value for name, value in state.items()
              if name in own or not re.search(r'attn\.[qkv]_proj\.', name)}
    for name, query in state.items():
        if not name.endswith('attn.q_proj.weight') or name in own:
            continue
        place = name.removesuffix('q_proj.weight')
        result[f'{place}qkv.weight'] = torch.cat([state[f'{place}{part}_proj.weight'] for part in 'qkv'])
        if f'{place}q_proj.bias' in state:
            q, k, v = (state.get(f'{place}{part}_proj.bias', query.new_zeros(len(query))) for part in 'qkv')
            if f'{place}q_bias' in own:  # The keys' bias changes nothing: the softmax removes it.
                result |= {f'{place}q_bias': q, f'{place}v_bias': v}
            else:
                result[f'{place}qkv.bias'] = torch.cat([q, k, v])
    for name in [name for name in result if '.mlp.fc1_g.' in name and name not in own]:  # DINOv2's SwiGLU
        gate, value = result.pop(name), result.pop(name.replace('fc1_g', 'fc1_x'))
        result[name.replace('fc1_g', 'fc1')] = torch.cat([gate, value])
    for kind in ('weight', 'bias'):  # SigLIP's attention pooling
        if (value := result.pop(f'attn_pool.qkv.{kind}', None)) is not None:
            width = len(value) // 3
            result |= {f'attn_pool.q.{kind}': value[:width], f'attn_pool.kv.{kind}': value[width:]}
    return result


def check_biases(state: dict[str, Tensor], own: dict[str, Tensor]) -> None:
    """A ValueError for biases of queries or values, other than zeros, that the model has no place for."""
    for name, bias in state.items():
        place = name.removesuffix('qkv.bias')
        if f'{place}qkv.weight' in own and place != name and not {name, f'{place}q_bias'} & own.keys():
            query, _, value = bias.chunk(3)
            if query.any() or value.any():
                raise ValueError(f'{name} is not zero, and the model has no such bias: take its variant '
                                 'with one, such as vit_base_patch16_dinov3_qkvb')


# What maps CLIP's tokens to the space that it shares with texts, by the names of OpenAI and open_clip,
# which hold it transposed, transformers and timm.
PROJECTIONS = 'visual.proj', 'proj', 'visual_projection.weight', 'head.weight'


def load_projection(layer: nn.Linear, path: str | Path) -> None:
    """Fill a CLIP's projection, a linear layer without bias, from its encoder's file, or a RuntimeError."""
    state = read_weights(path)[0]
    name = next((name for name in PROJECTIONS if name in state), None)
    if name is None:
        raise RuntimeError(f'{path} has no projection ({", ".join(PROJECTIONS)}) behind its encoder: leave '
                           'projection out, the features are then those of the norm')
    weight = state[name].mT if name.endswith('proj') else state[name]
    biased = name == 'head.weight' and 'head.bias' in state and bool(state['head.bias'].any())
    if weight.shape != layer.weight.shape or biased:
        raise RuntimeError(f'{path}: {name} is {tuple(weight.shape)}{" with a bias" * biased}, the '
                           f'projection {tuple(layer.weight.shape)} without one: set projection to '
                           f'{len(weight)}')
    layer.load_state_dict(dict(weight=weight))


@WEIGHT_INITIALIZERS.register_module('PretrainedProjection')
def pretrained_projection(checkpoint: str | Path, **options) -> partial:
    """``load_projection`` as an initializer of mmengine, with the names of its 'Pretrained'."""
    return partial(load_projection, path=checkpoint)


@WEIGHT_INITIALIZERS.register_module('PretrainedTimm')
def pretrained_timm(checkpoint: str | Path, prefix: str = 'backbone.', **options) -> partial:
    """``load_timm`` as an initializer of mmengine, with the names of its 'Pretrained'."""
    return partial(load_timm, path=checkpoint, prefix=prefix, **options)
