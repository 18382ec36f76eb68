"""What a manifest derives from its own fields."""

from mlruns_config.heads import Calibration
from tests.fixtures.manifests import make_manifest

HALVES = Calibration(kind="platt", inputs=[0, 1], outputs=[0, 0.5])


def test_a_changed_copy_derives_from_its_own_fields_and_not_from_those_of_the_original():
    manifest = make_manifest()
    assert manifest.priority.calibration.apply(0.5) == 0.5

    changed = manifest.model_copy(update={"calibration": HALVES})
    assert changed.priority.calibration.apply(0.5) == 0.25
    assert manifest.priority.calibration.apply(0.5) == 0.5


def test_a_changed_map_is_applied_with_its_own_knots():
    assert HALVES.apply(1.0) == 0.5

    assert HALVES.model_copy(update={"outputs": [0, 0.25]}).apply(1.0) == 0.25
