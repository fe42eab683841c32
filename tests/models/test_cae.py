"""The algorithm: what it returns, what it leaves out, what it refuses."""
import pytest
import torch
from mmpretrain.registry import MODELS
from torch import nn

from cae_mm.models.cae import split_mask
from cae_mm.models.layers import TransformerBlock

BLOCK = dict(drop_path_rate=0.1)


def build(**changes):
    torch.manual_seed(0)
    config = dict(
        type='ContextAutoencoder',
        backbone=dict(type='CAEViT', arch=dict(embed_dims=32, num_layers=2, num_heads=4),
                      img_size=32, patch_size=8, **BLOCK),
        neck=dict(type='LatentContextualRegressor', grid_size=4, in_dims=32, embed_dims=16,
                  num_heads=2, depth=2, **BLOCK),
        head=dict(type='CAEDecoder', grid_size=4, embed_dims=16, num_heads=2, depth=1,
                  num_outputs=192, **BLOCK),
        target_generator=dict(type='PixelTarget', patch_size=8))
    for key, value in changes.items():
        part, name = key.split('__')
        config[part][name] = value
    return MODELS.build(config)


def batch(size=4, masked=6):
    mask = torch.rand(size, 16).argsort(1) < masked
    return dict(inputs=dict(images=torch.randint(0, 256, (size, 3, 32, 32), dtype=torch.uint8),
                            mask=mask))


def test_split_mask():
    mask = torch.tensor([[1, 0, 1, 0], [0, 0, 1, 1]]).bool()
    visible, masked = split_mask(mask)
    assert visible.tolist() == [[1, 3], [0, 1]] and masked.tolist() == [[0, 2], [2, 3]]


@pytest.mark.parametrize('mask', [[[0, 0]], [[1, 1]], [[1, 0], [0, 0]]])
def test_split_mask_refuses(mask):
    with pytest.raises(ValueError, match=r'in 1\.\.1'):
        split_mask(torch.tensor(mask).bool())


def test_a_step_reaches_every_parameter_but_not_the_target():
    model = build().train()
    data = model.data_preprocessor(batch())
    losses = model(**data, mode='loss')
    assert set(losses) == {'loss_reconstruct', 'loss_align'}
    losses['loss_align'].backward(retain_graph=True)
    # Alignment trains the regressor and the encoder, but not what comes after the prediction.
    assert all(p.grad is None for p in model.head.parameters())
    losses['loss_reconstruct'].backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_alignment_target_is_the_encoder_of_now():
    model = build().eval()
    inputs = model.data_preprocessor(batch())['inputs']
    before = model.forward_masked(**inputs).target
    with torch.no_grad():
        model.backbone.blocks[0].mlp.fc1.weight += 0.1
    after = model.forward_masked(**inputs).target
    inputs.pop('target_images')  # by default, those of the images themselves
    torch.testing.assert_close(model.forward_masked(**inputs).target, after)
    _, masked = split_mask(inputs['mask'])
    expected = model.neck.project(model.backbone.encode(inputs['images'], masked)[:, 1:])
    assert not after.requires_grad and not torch.allclose(before, after)
    torch.testing.assert_close(after, expected)


def test_one_batch_is_learned():
    model = build()
    model.eval()  # no drop path: the loss of one batch must fall steadily
    inputs = model.data_preprocessor(batch())['inputs']
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    history = []
    for _ in range(30):
        out = model.forward_masked(**inputs)
        loss = out.loss_reconstruct + out.loss_align
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    assert history[-1] < 0.8 * history[0]


def test_bfloat16_autocast_keeps_gradients_of_the_encoder():
    """The passes with and without gradients share autocast's cache of cast weights."""
    model = build().eval()
    inputs = model.data_preprocessor(batch())['inputs']

    def gradients(enabled):
        model.zero_grad()
        with torch.autocast('cpu', torch.bfloat16, enabled=enabled):
            losses = model.loss(inputs)
        assert all(loss.dtype == torch.float32 for loss in losses.values())
        sum(losses.values()).backward()
        return torch.cat([p.grad.flatten() for p in model.backbone.parameters()])

    low, full = gradients(True), gradients(False)
    assert nn.functional.cosine_similarity(low, full, dim=0) > 0.99


@pytest.mark.needs_compiler
def test_compiled_forward_agrees():
    model = build().eval()
    inputs = model.data_preprocessor(batch())['inputs']
    eager = model.loss(inputs)
    model.compile_forward()
    torch.testing.assert_close(model.loss(inputs), eager, atol=1e-5, rtol=1e-5)


def test_what_is_computed_again_changes_no_gradient():
    inputs, blocks = None, []
    for again in (False, True):
        model = build(**{f'{part}__with_cp': again for part in ('backbone', 'neck', 'head')}).eval()
        inputs = inputs or model.data_preprocessor(batch())['inputs']
        calls = []
        for block in (*model.backbone.blocks, *model.neck.blocks, *model.head.blocks):
            block.register_forward_pre_hook(lambda *args, calls=calls: calls.append(args))
        sum(model.loss(inputs).values()).backward()
        blocks.append((len(calls), [parameter.grad for parameter in model.parameters()]))
    # The alignment's pass of the encoder has no gradients, and so nothing to keep.
    assert [number for number, _ in blocks] == [2 + 2 + 2 + 1, 2 + 2 * (2 + 2 + 1)]
    torch.testing.assert_close(blocks[1][1], blocks[0][1])


def test_checkpoints_do_not_carry_the_target_generator():
    model = build()
    model.target_generator.register_buffer('table', torch.ones(3))
    state = model.state_dict()
    assert not any(name.startswith('target_generator') for name in state)
    assert not build().load_state_dict(state, strict=True).missing_keys


@pytest.mark.parametrize('changes, message', [
    (dict(neck__in_dims=16), 'in_dims=16'),
    (dict(head__embed_dims=32), 'neck has 16 channels, the head 32'),
    (dict(head__num_outputs=10), 'num_outputs=10'),
    (dict(neck__grid_size=5), 'grid_size'),
    (dict(head__num_heads=5), '16 channels do not split into 5 heads'),
])
def test_parts_that_do_not_fit(changes, message):
    with pytest.raises(ValueError, match=message):
        build(**changes)


def test_grids_that_do_not_fit():
    model = build()
    data = model.data_preprocessor(batch())['inputs']
    with pytest.raises(ValueError, match='6x6 targets of a 48x48 view'):
        model.forward_masked(data['images'], data['mask'], torch.rand(4, 3, 48, 48))
    with pytest.raises(ValueError, match='masks of 9'):
        model.forward_masked(data['images'], data['mask'][:, :9], data['target_images'])


def test_attention_is_that_of_the_formula():
    torch.manual_seed(0)
    block = TransformerBlock(16, 2).eval()
    nn.init.normal_(block.attn.q_bias)
    nn.init.normal_(block.attn.v_bias)
    x = torch.randn(2, 5, 16)
    q, k, v = (block.attn.qkv(x) + torch.cat(
        [block.attn.q_bias, torch.zeros(16), block.attn.v_bias])).chunk(3, -1)
    heads = []
    for h in (slice(0, 8), slice(8, 16)):
        weights = (q[..., h] @ k[..., h].transpose(1, 2) / 8 ** 0.5).softmax(-1)
        heads.append(weights @ v[..., h])
    torch.testing.assert_close(block.attn(x), block.attn.proj(torch.cat(heads, -1)),
                               atol=1e-5, rtol=1e-5)


def test_without_blocks_the_decoder_is_norm_and_layer():
    decoder = MODELS.build(dict(type='CAEDecoder', grid_size=4, num_outputs=5, embed_dims=16, depth=0))
    predicted = torch.randn(2, 3, 16)
    logits = decoder(predicted, torch.tensor([[0, 1, 2], [3, 4, 5]]))
    assert torch.equal(logits, decoder.head(decoder.norm(predicted)))


def test_flops_are_those_counted():
    """One forward pass counted by PyTorch; ours says three times that, less for the target."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode
    model = build().eval()
    inputs = model.data_preprocessor(batch(size=1, masked=8))['inputs']
    visible, masked = split_mask(inputs['mask'])

    def count(function, *args):
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            function(*args)
        return counter.get_total_flops()

    total = count(lambda: model.head.head(model.predict_masked(inputs['images'], visible, masked)[-1]))
    encode = count(model.backbone.encode, inputs['images'], masked)
    project = count(model.neck.project, torch.zeros(1, 8, 32))
    assert model.flops_per_image() == 3 * total - 2 * (encode + project)


def test_paired_masks_are_two_ordinary_steps():
    """Loss and gradients are the mean of a step with the masks and one with their complements."""
    inputs, results = None, []
    for paired in (True, False):
        model = build(backbone__drop_path_rate=0., neck__drop_path_rate=0., head__drop_path_rate=0.)
        model.paired = paired
        inputs = inputs or model.data_preprocessor(batch(masked=8))['inputs']
        model.train()
        if paired:
            out = model.forward_masked(**inputs)
            assert len(out.latent) == len(out.ids) == 2 * len(inputs['mask'])
            losses = [(out.loss_reconstruct, out.loss_align)]
        else:
            outs = [model.forward_masked(**dict(inputs, mask=mask))
                    for mask in (inputs['mask'], ~inputs['mask'])]
            losses = [(out.loss_reconstruct / 2, out.loss_align / 2) for out in outs]
        # Each loss alone: alignment must not reach what made its target.
        for kind in (0, 1):
            model.zero_grad()
            sum(loss[kind] for loss in losses).backward(retain_graph=True)
            results.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
            results[-1]['loss'] = sum(loss[kind] for loss in losses).detach()
    for pairs, steps in zip(results[:2], results[2:], strict=True):
        assert pairs.keys() == steps.keys()
        for name in pairs:
            torch.testing.assert_close(pairs[name], steps[name], atol=1e-6, rtol=1e-4)


def test_paired_masks_save_a_pass():
    model = build().train()
    twice = 2 * model.flops_per_image()
    model.paired = True
    assert model.flops_per_image() < twice
    with pytest.raises(ValueError, match='6 of 16 patches are masked: paired masks need half'):
        model(**model.data_preprocessor(batch(masked=6)), mode='loss')
    model.eval()  # pictures and validation: ordinary
    out = model.forward_masked(**model.data_preprocessor(batch(masked=6))['inputs'])
    assert len(out.latent) == 4


def test_without_alignment_there_is_no_pass_for_it():
    model = build().train()
    model.align_weight = 0.
    assert set(model(**model.data_preprocessor(batch()), mode='loss')) == {'loss_reconstruct'}
