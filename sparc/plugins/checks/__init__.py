"""The contract of plugins as checks, for `sparc plugins check` and for the tests of plugin authors.

from sparc.plugins.checks import check_backbone

def test_my_backbone_keeps_the_contract():
    check_backbone(my_package.sparc_backbones()[0], {"weights": "random"})
"""

from sparc.plugins.checks.backbone import check_backbone
from sparc.plugins.checks.checks import Outcome
from sparc.plugins.checks.dataset import check_dataset

__all__ = ["Outcome", "check_backbone", "check_dataset"]
