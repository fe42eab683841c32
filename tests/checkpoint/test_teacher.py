"""Teachers of CAE v2 from files in every naming, and what is refused."""
import pytest
import timm
import torch
import transformers
from safetensors.torch import save_file

from cae_mm.checkpoint.files import read_weights
from cae_mm.models import TeacherFeatures

from .test_timm_weights import SIZES, SMALL, authors_clip, random_

CLIP = 'vit_base_patch16_clip_quickgelu_224'
TOKENS = torch.arange(-1, 16).expand(2, -1)


def timm_file(folder):
    """As timm writes it: the projection is the classifier."""
    torch.save(random_(timm.create_model(CLIP, num_classes=12, **SMALL)).state_dict() | {
        'head.bias': torch.zeros(12)}, folder / 'timm.pth')
    return folder / 'timm.pth'


def authors(folder):
    state = torch.load(timm_file(folder))
    projection = state.pop('head.weight')
    del state['head.bias']
    authors_clip(state)
    return {name: value.contiguous() for name, value in (state | {'visual.proj': projection.T}).items()}


def openai(folder):
    """OpenAI's files are TorchScript, with half-precision numbers; nothing in them is run."""
    root = torch.nn.Module()
    for name, value in authors(folder).items():
        *path, last = name.split('.')
        module = root
        for part in path:
            if not hasattr(module, part):
                module.add_module(part, torch.nn.Module())
            module = getattr(module, part)
        module.register_parameter(last, torch.nn.Parameter(value.half()))
    torch.jit.script(root).save(folder / 'ViT.pt')
    assert read_weights(folder / 'ViT.pt')[0].keys() == root.state_dict().keys()
    return folder / 'ViT.pt'


def open_clip(folder):
    save_file(authors(folder), folder / 'open_clip.safetensors')
    return folder / 'open_clip.safetensors'


def hugging_face(folder):
    config = transformers.CLIPVisionConfig(**SIZES, projection_dim=12)
    random_(transformers.CLIPVisionModelWithProjection(config)).save_pretrained(folder)
    return folder / 'model.safetensors'


def teacher(path, **options):
    return TeacherFeatures(dict(type='TimmViT', name=CLIP, **SMALL), **{'projection': 12} | options,
                           init_cfg=dict(type='Pretrained', checkpoint=str(path)))


@pytest.mark.parametrize('write', [timm_file, openai, open_clip, hugging_face])
def test_every_naming(write, tmp_path):
    path = write(tmp_path)
    images = torch.rand(2, 3, 64, 64)
    ours = teacher(path)
    found = ours.get_targets(images, TOKENS)
    assert found.shape == (2, 17, 12) and not any(p.requires_grad for p in ours.parameters())
    if write is hugging_face:
        theirs = transformers.CLIPVisionModelWithProjection.from_pretrained(tmp_path).eval()
        with torch.no_grad():
            tokens = theirs.vision_model(ours.normalise(images)).last_hidden_state
            expected = theirs.visual_projection(theirs.vision_model.post_layernorm(tokens))
    else:
        expected = teacher(tmp_path / 'timm.pth').get_targets(images, TOKENS)
    torch.testing.assert_close(found, expected, atol=1e-5 if write is not openai else 2e-2, rtol=0)


def test_refusals(tmp_path):
    path = timm_file(tmp_path)
    with pytest.raises(RuntimeError, match=r'head.weight is \(12, 48\), the projection \(8, 48\)'):
        teacher(path, projection=8)
    state = torch.load(path)
    torch.save({key: value for key, value in state.items() if 'head' not in key}, path)
    with pytest.raises(RuntimeError, match='has no projection'):
        teacher(path)
    assert teacher(path, projection=None).num_outputs == 48
    del state['norm.weight']
    torch.save(state, path)
    with pytest.raises(RuntimeError, match='1 missing: norm.weight'):
        teacher(path)
    with pytest.raises(FileNotFoundError, match='A teacher is a trained vision transformer, such as CLIP'):
        teacher(tmp_path / 'none.pth')
