import json

from pipeline.reference.summaries import ROWS, Trait, summary_from_json, summary_to_json

SUMMARY = {
    ROWS: 84.0,
    Trait("missing", ("temp",)): 0.25,
    Trait("location", ("temp",)): 0.1 + 0.2,
    Trait("spread", ("x|y",)): 1.5,
    Trait("share", ("plan",), "free|paid"): 0.5,
    Trait("correlation", ("a ~ b", "|rows")): -0.4,
    Trait("atom", ("|rows",)): 0.0,
    Trait("copies"): 0.0,
}


def test_a_summary_survives_json_to_the_bit_and_in_its_order():
    stored = json.loads(json.dumps(summary_to_json(SUMMARY)))

    assert list(summary_from_json(stored).items()) == list(SUMMARY.items())


def test_a_summary_stored_by_text_is_still_read():
    stored = {
        "|rows": 84.0,
        "temp|missing": 0.25,
        "temp|location": 0.3,
        "temp|spread": 1.5,
        "plan|share of free": 0.5,
        "plan|share of a|location": 0.1,
        "dewp ~ temp|correlation": 0.9,
        "x|y|atom": 0.01,
        "temp|strays": 0.02,
        "temp|step": 0.6,
        "temp|even": 0.03,
        "|copies": 0.0,
        "|repeats": 0.01,
    }

    assert summary_from_json(stored) == {
        Trait("rows"): 84.0,
        Trait("missing", ("temp",)): 0.25,
        Trait("location", ("temp",)): 0.3,
        Trait("spread", ("temp",)): 1.5,
        Trait("share", ("plan",), "free"): 0.5,
        Trait("share", ("plan",), "a|location"): 0.1,
        Trait("correlation", ("dewp", "temp")): 0.9,
        Trait("atom", ("x|y",)): 0.01,
        Trait("strays", ("temp",)): 0.02,
        Trait("step", ("temp",)): 0.6,
        Trait("even", ("temp",)): 0.03,
        Trait("copies"): 0.0,
        Trait("repeats"): 0.01,
    }
