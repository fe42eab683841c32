"""Learning-rate schedules against those of the official code."""
import json
import re

import numpy as np
import pytest
import torch
from mmengine.optim import OptimWrapper

from cae_mm.engine import WarmupCosineLR

NUMBER = r'(-?[\d.e-]+)'


@pytest.mark.parametrize('fixture', ['schedules'])
def test_cosine_schedules(golden, fixture):
    entry = json.loads((golden / 'manifest.json').read_text())['entries'][fixture]
    arrays = np.load(golden / entry['file'])
    calls = {name: entry['calls'][name]['call'] for name in entry['calls']
             if entry['calls'][name]['call'].startswith('cosine_scheduler')}
    assert calls
    for name, call in calls.items():
        args = {key: float(value) for key, value in re.findall(rf'(\w+)={NUMBER}', call)}
        parameter = torch.nn.Parameter(torch.zeros(1))
        wrapper = OptimWrapper(torch.optim.SGD([parameter], lr=args['base']))
        scheduler = WarmupCosineLR.build_iter_from_epoch(
            wrapper, warmup_epochs=args['warmup_epochs'], min_lr=args['final'],
            epoch_length=int(args['niter_per_ep']), end=args['epochs'])
        rates = []
        for _ in range(int(args['epochs'] * args['niter_per_ep'])):
            rates.append(wrapper.param_groups[0]['lr'])
            wrapper.step()
            scheduler.step()
        index = arrays[f'lr/{name}/index']
        np.testing.assert_allclose(np.array(rates)[index], arrays[f'lr/{name}/value'],
                                   rtol=1e-12, atol=1e-15, err_msg=name)
        total, length = arrays[f'lr/{name}/sum_len']
        assert len(rates) == length
        assert sum(rates) == pytest.approx(total, rel=1e-10)


@pytest.mark.parametrize('fixture', ['schedules'])
def test_fractional_epochs_of_linear_probing(golden, fixture):
    entry = json.loads((golden / 'manifest.json').read_text())['entries'][fixture]
    arrays = np.load(golden / entry['file'])
    call = entry['calls']['linear_probe']['call']
    peak, warmup, epochs, min_lr = (float(re.search(pattern + NUMBER, call)[1]) for pattern in (
        '= ', 'warmup ', 'epochs ', 'min_lr '))
    wrapper = OptimWrapper(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=peak))
    # As many steps per epoch as it takes for the fixture's epochs to be whole steps.
    scheduler = WarmupCosineLR.build_iter_from_epoch(
        wrapper, warmup_epochs=warmup, min_lr=min_lr, endpoint=False, epoch_length=1000, end=epochs)
    for epoch, rate in zip(arrays['lr/linear_probe/epoch'], arrays['lr/linear_probe/value'],
                           strict=True):
        scheduler.load_state_dict({**scheduler.state_dict(), 'last_step': round(epoch * 1000) - 1})
        scheduler.step()
        assert wrapper.param_groups[0]['lr'] == pytest.approx(rate, rel=1e-9, abs=1e-12)
