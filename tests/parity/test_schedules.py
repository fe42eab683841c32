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
