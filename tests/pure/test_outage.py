"""When an outage is said: in few lines, each of which has an end."""

from durable_core.model.outage import AGAIN_S, Outage


def test_a_failure_that_the_next_try_mends_is_not_said():
    """Nor is its end."""
    outage = Outage()
    assert not outage.met(1.0)
    assert outage.over(1.1) is None
    assert outage.over(2.0) is None


def test_an_outage_is_said_once_now_and_then_and_when_it_is_over():
    """However often it is tried in between; its length counts from the first failure, and the next one begins anew."""
    outage = Outage()
    said = [at for at in range(150) if outage.met(float(at))]
    assert said == [1, 1 + AGAIN_S, 1 + 2 * AGAIN_S]
    assert outage.over(150.0) == 150.0
    assert [outage.met(at) for at in (151.0, 152.0, 153.0)] == [False, True, False]
    assert outage.over(160.0) == 9.0
