"""Probes by name: with arguments, unknown, doubled, or from another package; and the tokens that evidence names."""

import pytest

from monadnock import MonadnockError
from monadnock.findings.schema import TABLES
from monadnock.probes import Ask, Probe, probe_names, resolve_probes
from monadnock.sites import Stream
from monadnock.stats import Magnitude
from tests.probes.conftest import evidence_of


def test_all_probes_by_default():
    probes = resolve_probes(None)
    assert [probe.name for probe in probes] == probe_names()
    assert {"activations", "attention", "parameters", "router", "start_token", "weights"} <= set(probe_names())


@pytest.mark.parametrize("name", probe_names())
def test_every_probe_says_what_it_fills(name, scanned):
    (probe,) = resolve_probes([name])
    assert isinstance(probe, Probe)
    assert probe.name == name
    run = scanned("llama").run
    for table in probe.tables:
        assert table in TABLES and table in run.manifest.tables
    assert probe.thresholds.items() <= run.manifest.thresholds.items()
    assert all(ask.over in ("text", "start") for ask in probe.asks(scanned("llama").adapter))


def test_arguments():
    (probe,) = resolve_probes(["activations:query+key"])
    assert [ask.stream for ask in probe.asks(None)] == [Stream.QUERY, Stream.KEY]
    (probe,) = resolve_probes(["activations:key+key"])
    assert probe.asks(None) == [Ask(Stream.KEY, Magnitude)]


def test_a_probe_object_is_taken_as_it_is():
    (probe,) = resolve_probes(["weights"])
    assert resolve_probes([probe, "router"])[0] is probe


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (["activation"], "no probe 'activation': did you mean activations"),
        (["zzz"], "no probe 'zzz': known are activations, attention"),
        (["activations:qerry"], "no stream 'qerry'.*did you mean query"),
        (["activations:attn_probs"], "no stream 'attn_probs'"),
        (["activations:"], None),
        (["activations:query+"], "no stream ''"),
        (["weights:query"], "weights takes no arguments, 'query' was given"),
        ([], "No probe was asked for; known are"),
        (["weights", "router", "weights"], "Probe weights was asked for twice"),
    ],
)
def test_requests_that_make_no_sense(wanted, message):
    if message is None:
        assert [probe.name for probe in resolve_probes(wanted)] == ["activations"]
        return
    with pytest.raises(MonadnockError, match=message) as caught:
        resolve_probes(wanted)
    assert "\n" not in str(caught.value)


def test_tokens_are_named_with_their_class(tiny_adapter):
    evidence = evidence_of(tiny_adapter, {})
    evidence.windows.ids[1, 5] = 2
    assert evidence.token(0, 0) == {"token_id": 1, "token": "<s>", "token_class": "start"}
    assert evidence.token(0, 3) == {"token_id": 5, "token": "w2", "token_class": "other"}
    assert evidence.token(1, 5)["token_class"] == "start"  # a special token in the middle
