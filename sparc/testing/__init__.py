"""The contract between sparc and its plugins as checks that run, for the tests of whoever writes a plugin.

from sparc.testing import check_backbone

def test_my_backbone_keeps_the_contract():
    check_backbone(my_package.sparc_backbones()[0], {"weights": "random"})
"""

from sparc.testing.backbone import check_backbone
from sparc.testing.checks import Outcome
from sparc.testing.dataset import check_dataset

__all__ = ["Outcome", "check_backbone", "check_dataset"]
