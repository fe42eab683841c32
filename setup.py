import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfigs(build_py):
    """Put the configs and tools into the package, where OpenMMLab's tools look for them."""

    def run(self):
        super().run()
        target = Path(self.build_lib, 'cae_mm', '.mim')
        shutil.rmtree(target, ignore_errors=True)  # what an earlier build left
        for folder in ('configs', 'tools'):
            shutil.copytree(folder, target / folder, ignore=shutil.ignore_patterns('__pycache__'))
        shutil.copy('model-index.yml', target)


setup(cmdclass={'build_py': BuildWithConfigs})
