"""What a log shows of a long computation."""
from cae_mm.evaluation.progress import progress_bar


def test_a_log_is_not_flooded(capsys):
    with progress_bar('features of train', 300, 'images') as bar:
        for _ in range(300):
            bar.update()
    shown = capsys.readouterr().err
    assert 'features of train: 100%' in shown and '300/300' in shown and ' images/s' in shown
    assert shown.count('\r') == 2  # the start and the end


def test_nothing_when_not_asked(capsys):
    with progress_bar('k-NN', 1, 'images', show=False) as bar:
        bar.update()
    assert capsys.readouterr() == ('', '')
